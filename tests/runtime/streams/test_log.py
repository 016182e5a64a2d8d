"""The log: how a hub keeps up with a broker that breaks, sleeps, repeats, skips and forgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from scripted_broker import DEADLINE, Heard
from ssepool.brokers.base import Wants, anything
from ssepool.brokers.memory import MemoryBroker
from ssepool.brokers.record import unreadable
from ssepool.config import HubConfig
from ssepool.core.beginning import Found
from ssepool.core.event import Event, memory_of
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams.log import EventLog

NEWS = Subscription.of(["news"])


async def test_what_is_kept_fills_the_window_and_is_not_delivered_as_news_to_come(heard: Heard) -> None:
    late = Heard()
    late.broker.put(25)
    await late.log.open()
    assert (late.log.position, late.log.window.oldest, late.log.window.newest) == (25, 0, 25)
    await late.log.close()


async def test_entries_are_delivered_once_and_in_order(heard: Heard) -> None:
    for _ in range(30):
        heard.broker.put(3)
    await heard.until(lambda: len(heard.all) == 90)
    assert heard.all == list(range(1, 91))
    assert heard.log.window.kept.events == 90


async def test_a_broken_tail_goes_on_where_it_broke_also_if_it_repeats(heard: Heard) -> None:
    heard.broker.repeats = 7
    for _ in range(5):
        heard.broker.put(4)
        await heard.until(lambda: heard.log.position == heard.broker.entries[-1].position)
        heard.broker.broken = "the cable is out"
        heard.broker.ring()
        await heard.until(lambda: heard.log.failing is not None)
        heard.broker.broken = None
        heard.broker.put(4)
    await heard.until(lambda: heard.log.position == 40)
    await heard.until(lambda: heard.log.failing is None)
    assert heard.all == list(range(1, 41))


async def test_a_tail_that_sleeps_is_woken(heard: Heard) -> None:
    heard.broker.asleep = True
    heard.broker.put(5)
    before = heard.broker.tails
    await heard.until(lambda: heard.broker.tails > before)
    heard.broker.asleep = False
    await heard.until(lambda: heard.all == [1, 2, 3, 4, 5])


async def test_a_tail_that_waits_for_delivery_is_left_alone(heard: Heard) -> None:
    heard.open.clear()
    heard.broker.put(5)
    await heard.until(lambda: heard.log._crowded)
    before, looks = heard.broker.tails, heard.log.bounds
    await heard.until(lambda: heard.log.bounds is not looks)
    looks = heard.log.bounds
    await heard.until(lambda: heard.log.bounds is not looks)
    assert (heard.broker.tails, heard.all) == (before, [])
    heard.open.set()
    await heard.until(lambda: heard.all == [1, 2, 3, 4, 5])


async def test_a_broker_that_forgot_everything_is_told_and_followed_anew(heard: Heard) -> None:
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    old = heard.log.window.epoch
    heard.broker.forget("0000000b")
    heard.broker.put(3)
    await heard.until(lambda: heard.log.window.epoch == "0000000b" and heard.log.position == 3)
    assert heard.all == [1, 2, 3, 4, 5, "lost", 1, 2, 3]
    assert await heard.log.ask(f"{old}-5", NEWS) == Found(0, False)
    assert heard.log.find("0000000b-2", NEWS) == Found(2, True)


async def test_a_broker_that_forgot_the_newest_is_told_and_nothing_comes_twice(heard: Heard) -> None:
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    del heard.broker.entries[3:]  # as a replica has it that was behind when it took over
    await heard.until(lambda: heard.log.position == 3)
    heard.broker.put(2)
    await heard.until(lambda: heard.log.position == 5)
    assert heard.all == [1, 2, 3, 4, 5, "lost", 4, 5]


async def looked(heard: Heard, times: int = 2) -> None:
    """The log has looked after its broker so many times more, and has taken the answer in."""
    enough = heard.broker.looks + times + 1
    await heard.until(lambda: heard.broker.looks >= enough)


@pytest.mark.parametrize("error", [BrokerError("not for you"), RuntimeError("a defect")])
async def test_who_cannot_follow_says_so_though_the_broker_answers(
    heard: Heard, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heard.broker.put(2)
    await heard.until(lambda: heard.log.position == 2)
    heard.broker.deaf = error
    heard.broker.put(2)
    await heard.until(lambda: heard.log.failing is not None)
    await looked(heard)
    assert str(error) in str(heard.log.failing)
    assert [line for line in caplog.messages if "broker is" in line] == [f"the broker is away: {heard.log.failing}"]
    heard.broker.deaf = None
    await heard.until(lambda: heard.log.failing is None)
    await heard.until(lambda: heard.all == [1, 2, 3, 4])


async def test_who_follows_again_says_so_though_there_is_nothing_new(heard: Heard) -> None:
    heard.broker.deaf = BrokerError("not for you")
    heard.broker.ring()
    await heard.until(lambda: heard.log.failing is not None)
    heard.broker.deaf = None
    await heard.until(lambda: heard.log.failing is None)
    assert heard.all == []


async def test_a_look_that_fails_in_any_way_does_not_end_looking(heard: Heard) -> None:
    heard.broker.blind = ZeroDivisionError("a defect")
    await heard.until(lambda: heard.log.failing is not None)
    heard.broker.put(3)
    await heard.until(lambda: heard.all == [1, 2, 3])
    assert "the look failed: ZeroDivisionError: a defect" in str(heard.log.failing)
    heard.broker.blind = None
    await heard.until(lambda: heard.log.failing is None)


async def test_entries_that_were_dropped_while_we_were_away_are_told(heard: Heard) -> None:
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    heard.broker.broken = "gone for a while"
    heard.broker.ring()
    await heard.until(lambda: heard.log.failing is not None)
    heard.broker.put(10)
    heard.broker.drop(9)
    heard.broker.broken = None
    await heard.until(lambda: heard.log.position == 15)
    assert heard.all == [1, 2, 3, 4, 5, "lost", *range(10, 16)]


async def test_records_that_cannot_be_read_are_told_of_in_their_place_and_passed_over(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    heard.broker.put(9)
    for position in (3, 4, 9):
        heard.broker.entries[position - 1] = unreadable(position)
    await heard.until(lambda: heard.log.position == 9)
    heard.broker.put(1)
    await heard.until(lambda: heard.log.position == 10)
    assert heard.all == [1, 2, "lost", 5, 6, 7, 8, "lost", 10]
    assert [record.getMessage().rpartition("positions ")[2] for record in caplog.records] == ["3 to 4", "9 to 9"]
    assert [entry.position for entry in await heard.log.fetch([2, 6, 7])] == [2, 6, 7]
    assert await heard.log.fetch([99]) == []


async def test_a_defect_in_one_page_does_not_end_following(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deliver = heard.log._deliver

    def fail_once(entries: object) -> None:
        monkeypatch.setattr(heard.log, "_deliver", deliver)
        raise AttributeError("a defect")

    monkeypatch.setattr(heard.log, "_deliver", fail_once)
    heard.broker.put(2)
    await heard.until(lambda: "the tail of memory:// failed; trying again" in caplog.text)
    heard.broker.put(2)
    await heard.until(lambda: heard.log.position == 4)


async def test_a_position_is_waited_for_unless_its_history_is_lost(heard: Heard) -> None:
    waiting = asyncio.create_task(heard.log.reached(4))
    heard.broker.put(3)
    await heard.until(lambda: heard.log.position == 3)
    assert not waiting.done()
    heard.broker.put(1)
    await asyncio.wait_for(waiting, DEADLINE)
    lost = asyncio.create_task(heard.log.reached(100))
    await asyncio.sleep(0)
    heard.broker.forget("0000000c")
    await asyncio.wait_for(lost, DEADLINE)


async def test_opening_says_what_is_wrong() -> None:
    heard = Heard()
    heard.broker.broken = "nobody there"
    with pytest.raises(BrokerError, match="nobody there"):
        await heard.log.open()
    await heard.log.close()


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


async def test_a_place_that_is_ahead_of_us_is_waited_for_though_its_event_is_not_kept(heard: Heard) -> None:
    heard.broker.asleep = True
    heard.broker.put(3)
    heard.broker.find = nothing  # type: ignore[method-assign]
    asking = asyncio.create_task(heard.log.ask("0000000a-3", NEWS))
    await asyncio.sleep(0)
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
