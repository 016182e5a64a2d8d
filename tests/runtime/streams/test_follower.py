"""The follower: how a hub keeps up with a broker that breaks, sleeps, repeats, skips and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from scripted_broker import DEADLINE, Heard
from ssepool.brokers.record import Record, unreadable
from ssepool.core.beginning import Found
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.timelines import Timeline
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams import sweeper as sweeper_module

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


async def test_what_left_the_history_is_counted_on_when_another_begins(heard: Heard) -> None:
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    heard.log.window.clear()
    heard.broker.forget("0000000b")
    heard.broker.put(3)
    await heard.until(lambda: heard.log.window.epoch == "0000000b" and heard.log.position == 3)
    heard.log.window.clear()
    assert heard.log.window.dropped["age"] == 8


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
    heard.broker.lose(9)
    heard.broker.broken = None
    await heard.until(lambda: heard.log.position == 15)
    assert heard.all == [1, 2, 3, 4, 5, "lost", *range(10, 16)]


async def test_entries_that_are_gone_are_told_and_passed_though_nothing_follows_them(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    heard.broker.put(2)
    await heard.until(lambda: heard.log.position == 2)
    heard.broker.asleep = True
    heard.broker.put(3)
    heard.broker.lose(5)
    heard.broker.asleep = False
    waiting = asyncio.create_task(heard.log.reached(5))
    await heard.until(lambda: heard.log.position == 5)
    await asyncio.wait_for(waiting, DEADLINE)
    assert "does not have any more the events at the positions 3 to 5" in caplog.text
    heard.broker.put(1)
    await heard.until(lambda: heard.log.position == 6)
    assert heard.all == [1, 2, "lost", 6]


async def test_what_a_slow_tail_has_not_given_yet_does_not_count_as_gone(heard: Heard) -> None:
    heard.broker.read = none_kept  # type: ignore[method-assign]
    heard.broker.asleep = True
    before = heard.broker.tails
    heard.broker.put(3)
    await heard.until(lambda: heard.broker.tails >= before + 3)
    heard.broker.asleep = False
    await heard.until(lambda: heard.log.position == 3)
    assert heard.all == [1, 2, 3]


async def none_kept(after: int, *, max_entries: int) -> Sequence[Entry]:
    """What a broker answers whose history has room for nothing."""
    return []


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


async def test_a_backup_that_is_restored_goes_on_under_another_name(heard: Heard) -> None:
    heard.broker.floor = 0
    heard.broker.put(5)
    await heard.until(lambda: heard.log.position == 5)
    first = heard.log.window.epoch
    heard.broker.timelines = (Timeline(first, 5),)  # somebody has begun another one, and nothing is lost
    heard.broker.epoch = "0000000b"
    await heard.until(lambda: heard.log.window.epoch == "0000000b")
    heard.broker.put(3)
    await heard.until(lambda: heard.log.position == 8)
    assert heard.all == [1, 2, 3, 4, 5, 6, 7, 8]
    # A backup from before that name began, with less than the name before it had.
    heard.broker.epoch, heard.broker.timelines = first, ()
    del heard.broker.entries[4:]
    await heard.until(lambda: heard.log.position == 4)
    heard.broker.put(2)
    await heard.until(lambda: heard.log.position == 6)
    assert heard.all == [1, 2, 3, 4, 5, 6, 7, 8, "lost", 5, 6]
    log = heard.log
    third = log.window.epoch
    assert len({first, "0000000b", third}) == 3
    assert log.find(f"{first}-3", NEWS) == Found(3, True)
    assert log.find(f"{first}-5", NEWS) == Found(4, False, True)
    assert log.find("0000000b-4", NEWS) == Found(4, True)
    assert log.find("0000000b-7", NEWS) == Found(4, False, True)
    assert log.find(f"{third}-6", NEWS) == Found(6, True)
    assert [entry.position for entry in log.window.read(0, max_entries=99)] == [1, 2, 3, 4, 5, 6]


async def test_a_new_name_is_seen_though_what_waits_to_be_dropped_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "SPARE_SECONDS", 0.0)
    heard = Heard(topic_rules=("news events=1",))
    heard.broker.floor = 0
    first = heard.broker.epoch
    await heard.log.open()
    refused: list[str] = []

    async def drop(*_: object) -> None:
        if heard.log.bounds.epoch != heard.broker.epoch or not refused:
            refused.append(heard.broker.epoch)
            heard.broker.timelines, heard.broker.epoch = (Timeline(first, 3),), "0000000b"
            raise BrokerError("nothing was dropped, for the history has another name by now")

    monkeypatch.setattr(heard.broker, "drop", drop)
    heard.broker.put(3)
    await heard.until(lambda: refused)
    await heard.until(lambda: heard.log.window.epoch == "0000000b")
    await heard.until(lambda: heard.log.failing is None)
    assert heard.all == [1, 2, 3]
    await heard.log.close()


async def test_what_was_dropped_before_it_came_is_told_to_those_who_missed_it(heard: Heard) -> None:
    heard.broker.floor = 0
    await heard.until(lambda: heard.log.bounds.drops)
    for topic, told in (("other", []), ("news", ["lost"])):
        heard.broker.asleep = True
        heard.broker.put(2, topic)
        gone = heard.broker.entries[-1].position
        heard.broker.entries.append(Record(b"data: x\n\n", ("quiet",)).entry(heard.broker.epoch, gone + 1))
        await heard.broker.drop([gone - 1, gone], {topic: Cut(gone)}, 0)
        heard.all.clear()
        heard.broker.asleep = False
        heard.broker.ring()
        await heard.until(lambda gone=gone: heard.log.position == gone + 1)  # type: ignore[misc]
        assert heard.all == [*told, gone + 1]


async def test_who_comes_to_a_hole_without_cuts_sees_the_floor_first(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard.broker.floor = 0
    heard.broker.put(3)
    await heard.until(lambda: heard.log.bounds.drops and heard.log.position == 3)
    # A publisher drops what came while this hub was cut off; no look comes before the tail is there again.
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 1000.0)
    looks = heard.broker.looks
    await heard.until(lambda: heard.broker.looks > looks)
    heard.broker.put(3)
    heard.broker.lose(5)
    heard.broker.floor = 5
    await heard.until(lambda: heard.log.position == 6)
    assert heard.all == [1, 2, 3, "lost", 6]
    assert heard.log.window.cuts.floor == 5


async def test_what_is_dropped_while_a_hub_opens_is_known_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Heard()
    late.broker.floor = 0
    late.broker.put(9)
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 1000.0)
    read = late.broker.read

    async def losing(after: int, *, max_entries: int) -> Sequence[Entry]:
        if late.broker.floor == 0:
            late.broker.lose(4)
            late.broker.floor = 4
        return await read(after, max_entries=max_entries)

    monkeypatch.setattr(late.broker, "read", losing)
    await late.log.open()
    assert late.log.window.cuts.floor == 4
    assert [bool(late.log.lost(NEWS, place)) for place in (3, 4)] == [True, False]
    await late.log.close()
