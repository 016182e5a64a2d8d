"""The log: where a client goes on, by the id that it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from scripted_broker import DEADLINE, Heard
from ssepool.brokers.base import Wants, anything
from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig
from ssepool.core.beginning import Found
from ssepool.core.event import Event, memory_of
from ssepool.core.timelines import Timeline
from ssepool.core.topics import Subscription
from ssepool.runtime.streams import log as module
from ssepool.runtime.streams.log import EventLog

NEWS = Subscription.of(["news"])


async def test_ids_are_known_from_the_window_or_asked_for() -> None:
    heard = Heard(window_bytes=6 * memory_of(b"data: 50\n\n", ["news"]))
    heard.broker.put(50)
    heard.broker.entries[9] = replace(heard.broker.entries[9], id="chosen")
    await heard.log.open()
    assert not heard.log.window.is_whole
    assert heard.log.find("0000000a-48", NEWS) == Found(48, True)
    # Made ids need not be asked for, wherever they are: the first page shows whether it is kept.
    assert heard.log.find("0000000a-7", NEWS) == Found(7, True)
    assert await heard.log.ask("0000000b-7", NEWS) == Found(0, False)
    assert heard.log.find("earliest", NEWS) == Found(0, True)
    assert heard.log.find("chosen", NEWS) is None
    assert await heard.log.ask("chosen", NEWS) == Found(10, True)
    assert await heard.log.ask("unknown", NEWS) == Found(0, False)
    await heard.log.close()


async def test_of_events_with_one_id_the_first_counts_that_the_client_may_have_had() -> None:
    heard = Heard(window_bytes=12_000)
    for topic, private in (("a", False), ("b", False), ("a", True), ("c", False)):
        heard.broker.put(1, topic)
        heard.broker.entries[-1] = replace(heard.broker.entries[-1], id="order-42", private=private)
    heard.broker.put(30)
    for topic in ("b", "a/2"):
        heard.broker.put(1, topic)
        heard.broker.entries[-1] = replace(heard.broker.entries[-1], id="order-42")
    await heard.log.open()
    assert not heard.log.window.is_whole

    def of(*topics: str, patterns: Sequence[str] = (), private: bool = False) -> Subscription:
        return Subscription.of(topics, patterns, private)

    # Only publishers to a client's own topic can give it two events of one id, so the window may answer.
    assert heard.log.find("order-42", of("b")) == Found(35, True)
    # Where a stranger may publish to one topic of several, the window does not know which was first.
    for subscription, first in ((of("a", "b"), 1), (of("b", "c"), 2), (of(patterns=["a/*"]), 36), (of("c"), 4)):
        assert heard.log.find("order-42", subscription) is None
        assert await heard.log.ask("order-42", subscription) == Found(first, True)
    assert await heard.log.ask("order-42", of("nobody")) == Found(0, False)
    await heard.log.close()


@pytest.mark.parametrize("complete", [False, True])
async def test_an_id_of_thousands_of_topics_is_looked_for_in_steps(complete: bool) -> None:
    config = HubConfig(history_events=10_000)
    broker = MemoryBroker(config)
    broker.append_nowait([Event("x", (f"t/{number}",), id="order-42") for number in range(5000)])
    log = EventLog(broker, lambda entries: None, lambda missed: None, lambda: asyncio.sleep(0), time.monotonic)
    await log.open()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    for name, place in (("t/0", Found(1, True)), ("t/4999", Found(5000, True)), ("nobody", Found(0, False))):
        assert log.find("order-42", Subscription.of([name])) == place  # at once: names are looked up
    subscription = Subscription.of([], ["t/4999*" if complete else "nobody*"])
    assert log.find("order-42", subscription) is None
    assert await log.ask("order-42", subscription) == (Found(5000, True) if complete else Found(0, False))
    assert turns > 20
    counting.cancel()
    await asyncio.wait([counting])
    await log.close()


@pytest.mark.parametrize("chosen", [None, "chosen"])
async def test_a_client_that_is_ahead_of_us_is_taken_in_when_we_have_caught_up(
    heard: Heard, chosen: str | None
) -> None:
    heard.broker.put(3)
    await heard.until(lambda: heard.log.position == 3)
    heard.broker.asleep = True
    heard.broker.put(2)
    id = chosen or "0000000a-4"
    heard.broker.entries[3] = replace(heard.broker.entries[3], id=id)
    assert heard.log.find(id, NEWS) is None
    asking = asyncio.create_task(heard.log.ask(id, NEWS))
    before = heard.broker.tails
    await heard.until(lambda: heard.broker.tails > before)  # as long as that it has not come
    assert not asking.done()
    heard.broker.asleep = False
    assert await asyncio.wait_for(asking, DEADLINE) == Found(4, True)
    assert heard.log.position >= 4


@pytest.mark.parametrize("is_long", [False, True])
async def test_a_place_that_is_ahead_of_us_is_waited_for_though_its_event_is_not_kept(
    heard: Heard, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard.broker.asleep = True
    heard.broker.put(3)
    heard.broker.find = nothing  # type: ignore[method-assign]
    if is_long:  # the broker was away, say, and others follow it again before us
        monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    asking = asyncio.create_task(heard.log.ask("0000000a-3", NEWS))
    if is_long:
        before = heard.broker.tails
        await heard.until(lambda: heard.broker.tails > before)
    else:
        await asyncio.sleep(0)
    assert not asking.done()
    heard.broker.asleep = False
    heard.broker.ring()
    assert await asyncio.wait_for(asking, DEADLINE) == Found(3, True)


async def nothing(id: str, wants: Wants = anything) -> int | None:
    """What brokers answer that keep nothing."""
    return None


async def test_an_id_that_is_ahead_of_the_broker_too_is_unknown(heard: Heard) -> None:
    assert heard.log.find("0000000a-7", NEWS) is None
    assert await heard.log.ask("0000000a-7", NEWS) == Found(0, False)


async def test_publishing_at_once_needs_a_broker_in_this_process(heard: Heard) -> None:
    with pytest.raises(NotImplementedError, match="memory:// cannot publish without waiting"):
        heard.log.publish_nowait([Event("x", ("news",))])
    ids = await heard.log.publish([Event("x", ("news",)), Event("y", ("news",))])
    assert ids == ["0000000a-1", "0000000a-2"]
    assert await heard.log.store([Event("z", ("news",))]) == [("0000000a-3", 3)]


async def test_a_place_of_an_earlier_name_to_which_the_log_has_not_come_is_waited_for(heard: Heard) -> None:
    heard.broker.floor, first = 0, heard.broker.epoch
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    heard.broker.asleep = True
    heard.broker.put(2)
    heard.broker.timelines, heard.broker.epoch = (Timeline(first, 7),), "0000000b"
    await heard.until(lambda: heard.log.window.epoch == "0000000b")
    assert heard.log.position == 5
    assert heard.log.find(f"{first}-5", NEWS) == Found(5, True)
    assert heard.log.find(f"{first}-7", NEWS) is None
    asked = asyncio.create_task(heard.log.ask(f"{first}-7", NEWS))
    heard.broker.asleep = False
    heard.broker.ring()
    assert await asked == Found(7, True)
    assert heard.log.position == 7


async def test_a_place_of_a_name_that_has_just_begun_is_waited_for(heard: Heard) -> None:
    heard.broker.floor, first = 0, heard.broker.epoch
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    heard.broker.asleep = True
    asked = asyncio.create_task(heard.log.ask("0000000b-7", NEWS))
    heard.broker.timelines, heard.broker.epoch = (Timeline(first, 5),), "0000000b"
    heard.broker.put(2)
    await heard.until(lambda: heard.log.window.epoch == "0000000b")
    await asyncio.sleep(0)
    assert heard.log.position == 5
    heard.broker.asleep = False
    heard.broker.ring()
    assert await asked == Found(7, True)
