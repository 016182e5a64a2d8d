"""Delivery: rounds, what is kept for whom, and who is sent away; with members of feeds that are no links."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from parts import TO_NEWS, until
from ssepool.config import HubConfig
from ssepool.core.event import Entry, memory_of
from ssepool.core.feed import Feed, Member
from ssepool.core.states import Reason
from ssepool.runtime.streams.delivery import HELD_SHARES, MAX_BACKLOG_BYTES, MAX_WAKES, SLICE_SECONDS, Delivery

ONE = memory_of(b"0" * 10, ["news"])
"""Bytes of an event of ten characters."""


class Reader:
    """A member of a feed. It has room for so many events."""

    def __init__(self, setup: Setup, room: float = float("inf")) -> None:
        self.setup = setup
        self.weight = 0
        self.stalled = False
        self.room = room
        self.cursor = setup.feed.head
        self.got: list[bytes] = []
        self.flushes = 0
        self.closed: list[Reason] = []
        self.ended: list[Reason] = []
        self.instead: Callable[[], None] | None = None
        """Done in a flush in place of writing."""
        setup.feed.members[self] = None

    def flush(self) -> None:
        self.flushes += 1
        if self.instead is not None:
            self.instead()
            return
        feed = self.setup.feed
        while self.cursor < feed.head and self.room > 0:
            self.got.append(feed.entries[self.cursor - feed.first].chunk)
            self.cursor += 1
            self.room -= 1
        self.stalled = self.cursor < feed.head
        if self.stalled:
            feed.behind[self] = None
        else:
            self.setup.delivery.caught_up(feed, self)

    def close(self, reason: Reason) -> None:
        self.closed.append(reason)
        self.leave()

    def end(self, reason: Reason) -> None:
        self.ended.append(reason)
        self.leave()

    def leave(self) -> None:
        self.setup.feed.members.pop(self, None)
        self.setup.delivery.caught_up(self.setup.feed, self)


class Setup:
    """A feed and its delivery, with a clock that stands still."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.delivery = Delivery(HubConfig(**settings), lambda: self.now)
        self.feed = Feed(TO_NEWS)

    def publish(self, *frames: bytes) -> None:
        for frame in frames:
            self.delivery.append(self.feed, Entry(0, None, ("news",), frame), self.now)

    async def delivered(self) -> None:
        await until(lambda: not self.delivery._rounds)

    def kept(self) -> list[bytes]:
        return [entry.chunk for entry in self.feed.entries]


def fail() -> None:
    raise RuntimeError("on purpose")


def test_what_is_tested_with_is_a_member() -> None:
    member: Member = Reader(Setup())
    assert member.cursor == 0


# Rounds.


async def test_each_member_is_visited_once_for_what_came_together() -> None:
    setup = Setup()
    readers = [Reader(setup) for _ in range(9)]
    setup.publish(b"1", b"2", b"3")
    assert readers[0].flushes == 0  # a publisher does not write
    await setup.delivered()
    assert [reader.got for reader in readers] == [[b"1", b"2", b"3"]] * 9
    assert [reader.flushes for reader in readers] == [1] * 9


async def test_an_event_that_comes_in_the_middle_of_a_round_takes_another_one() -> None:
    setup = Setup()
    first, last = Reader(setup), Reader(setup)

    def publish_more() -> None:
        last.instead = None
        setup.publish(b"2")
        last.flush()

    last.instead = publish_more
    setup.publish(b"1")
    await setup.delivered()
    assert first.got == last.got == [b"1", b"2"]
    assert first.flushes == 2
    assert setup.kept() == []


async def test_members_may_come_and_go_in_the_middle_of_a_round() -> None:
    setup = Setup()
    first, second = Reader(setup), Reader(setup)
    came: list[Reader] = []

    def change() -> None:
        second.leave()
        came.append(Reader(setup))

    first.instead = change
    setup.publish(b"1")
    await setup.delivered()
    setup.publish(b"2")
    await setup.delivered()
    assert came[0].got == [b"2"]


@pytest.mark.parametrize(("weight", "turns"), [(0, 1), (MAX_WAKES // 4, 10)])
async def test_a_slice_wakes_so_many_tasks_and_no_more(weight: int, turns: int) -> None:
    setup = Setup()
    readers = [Reader(setup) for _ in range(40)]
    for reader in readers:
        reader.weight = weight
    setup.publish(b"1")
    taken = 0
    while any(not reader.got for reader in readers):
        await asyncio.sleep(0)
        taken += 1
    assert taken == turns
    await setup.delivered()


async def test_a_slice_ends_when_its_time_is_up_and_the_others_have_their_turn() -> None:
    setup = Setup()
    slow = [Reader(setup) for _ in range(8)]

    def take_long() -> None:
        setup.now += SLICE_SECONDS / 4

    for reader in slow:
        reader.instead = take_long
    other = Setup()
    other.delivery = setup.delivery
    quick = Reader(other)
    setup.publish(b"1")
    other.publish(b"2")
    await asyncio.sleep(0)
    assert (sum(reader.flushes for reader in slow), quick.flushes) == (4, 0)
    await asyncio.sleep(0)
    assert (sum(reader.flushes for reader in slow), quick.flushes) == (8, 1)
    await setup.delivered()


# Replays.


async def test_replays_take_turns_with_the_feeds() -> None:
    setup = Setup()
    behind, live = Reader(setup), Reader(setup)
    seen: list[str] = []

    def page() -> None:
        seen.append("page")
        if len(seen) < 20:
            setup.delivery.again(behind)

    behind.instead = page
    behind.weight = live.weight = 1
    del setup.feed.members[behind]
    live.instead = lambda: seen.append("live")
    setup.delivery.again(behind)
    setup.publish(b"1")
    await until(lambda: "live" in seen)
    assert seen.index("live") < 5
    await setup.delivered()
    assert seen.count("page") == 19


async def test_a_link_that_asks_twice_for_its_turn_has_it_once() -> None:
    setup = Setup()
    reader = Reader(setup)
    setup.delivery.again(reader)
    setup.delivery.again(reader)
    await setup.delivered()
    assert reader.flushes == 1


# What is kept.


async def test_a_feed_is_cleared_when_the_last_one_has_caught_up() -> None:
    setup = Setup()
    slow, slower, fast = Reader(setup, room=1), Reader(setup, room=0), Reader(setup)
    setup.publish(b"1", b"2", b"3")
    await setup.delivered()
    assert (fast.got, setup.kept()) == ([b"1", b"2", b"3"], [b"1", b"2", b"3"])
    slower.room = 9
    slower.flush()
    assert setup.kept() == [b"1", b"2", b"3"]  # dropped with the next round; `slow` lacks two of them
    slow.leave()
    assert setup.kept() == []
    assert list(setup.feed.behind) == []


async def test_a_feed_is_not_cleared_in_the_middle_of_a_round() -> None:
    setup = Setup()
    slow, later = Reader(setup, room=0), Reader(setup)
    setup.publish(b"1")
    await setup.delivered()
    setup.publish(b"2")
    slow.room = 9
    slow.flush()
    assert setup.kept() == [b"1", b"2"]  # `later` has had no turn
    await setup.delivered()
    assert later.got == [b"1", b"2"]
    assert setup.kept() == []


def test_who_was_not_behind_changes_nothing_by_having_caught_up() -> None:
    setup = Setup()
    reader = Reader(setup)
    setup.feed.append(Entry(0, None, ("news",), b"1"), 0.0)
    setup.delivery.caught_up(setup.feed, reader)
    assert setup.kept() == [b"1"]


@pytest.mark.parametrize(
    ("stalled", "waiting", "lag_events", "lag_bytes", "first"),
    [
        # Cursors of members that are stalled, and of those that only wait for their turn; 10 entries of 10 bytes.
        ([], [], 100, 1000, 10),
        ([3], [], 100, 100 * ONE, 3),
        ([3, 6], [], 100, 100 * ONE, 3),
        ([3, 6], [], 5, 100 * ONE, 5),
        ([3, 6], [], 100, 4 * ONE + 5, 6),
        ([3, 6], [4], 1, 100 * ONE, 4),
        ([8], [4], 1, 1, 4),
        ([], [4], 1, 1, 4),
        ([0], [], 1, 100 * ONE, 9),
    ],
)
async def test_after_a_round_what_nobody_needs_goes_and_what_the_bounds_forbid(
    stalled: list[int], waiting: list[int], lag_events: int, lag_bytes: int, first: int
) -> None:
    setup = Setup(lag_events=lag_events, lag_bytes=lag_bytes)
    for cursor in [*stalled, *waiting]:
        reader = Reader(setup)
        reader.stalled = cursor in stalled
        reader.cursor = cursor
        reader.instead = lambda: None
        setup.feed.behind[reader] = None
    healthy = Reader(setup)
    setup.publish(*[b"%010d" % number for number in range(10)])
    await setup.delivered()
    assert len(healthy.got) == 10
    assert (setup.feed.first, setup.feed.head) == (first, 10)


@pytest.mark.parametrize(
    ("policy", "closed"), [("skip", []), ("latest", []), ("disconnect", [Reason.LAGGED])], ids=lambda value: str(value)
)
async def test_who_has_fallen_off_is_sent_away_only_where_the_policy_says_so(policy: Any, closed: list[Reason]) -> None:
    setup = Setup(lag_policy=policy, lag_events=2)
    slow, just_in_time = Reader(setup, room=0), Reader(setup, room=1)
    setup.publish(b"1", b"2", b"3")
    await setup.delivered()
    assert (slow.closed, just_in_time.closed) == (closed, [])
    assert setup.kept() == [b"2", b"3"]


# Failing members.


async def test_a_member_that_fails_is_ended_and_the_others_get_their_event(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    before, broken, after = (Reader(setup) for _ in range(3))
    broken.instead = fail
    setup.publish(b"1")
    await setup.delivered()
    assert broken.ended == [Reason.ERROR]
    assert before.got == after.got == [b"1"]
    assert [record.message for record in caplog.records] == ["a link failed while writing; its client is sent away"]
    setup.publish(b"2")
    await setup.delivered()
    assert before.got == after.got == [b"1", b"2"]


async def test_a_member_that_fails_in_its_replay_is_ended_and_the_others_go_on() -> None:
    setup = Setup()
    broken, other = Reader(setup), Reader(setup)
    broken.instead = fail
    setup.delivery.again(broken)
    setup.delivery.again(other)
    await setup.delivered()
    assert (broken.ended, other.flushes) == ([Reason.ERROR], 1)


async def test_a_member_that_fails_while_it_is_sent_away_does_not_end_delivery() -> None:
    setup = Setup(lag_policy="disconnect", lag_events=1)
    slow, healthy = Reader(setup, room=0), Reader(setup)
    slow.close = lambda reason: fail()  # type: ignore[method-assign]
    setup.publish(b"1", b"2")
    await setup.delivered()
    assert slow.ended == [Reason.ERROR]
    setup.publish(b"3")
    await setup.delivered()
    assert healthy.got == [b"1", b"2", b"3"]


# How publishers are held back.


async def test_publishers_wait_while_more_is_published_than_delivered() -> None:
    setup = Setup()
    setup.delivery._schedule = lambda: None  # type: ignore[method-assign] its turn comes below
    Reader(setup)
    half = b"x" * (MAX_BACKLOG_BYTES // 2 - memory_of(b"", ["news"]))
    setup.publish(half, half)
    assert setup.delivery.has_room
    await setup.delivery.room()  # at once
    setup.publish(b"x")
    assert not setup.delivery.has_room
    waiting = [asyncio.create_task(setup.delivery.room()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    setup.delivery._slice()
    assert setup.delivery.has_room
    await asyncio.gather(*waiting[1:])


async def test_a_client_that_takes_nothing_does_not_hold_publishers_back() -> None:
    setup = Setup(lag_bytes=2 * MAX_BACKLOG_BYTES)
    Reader(setup, room=0)
    setup.publish(b"x" * (MAX_BACKLOG_BYTES + 1))
    await asyncio.wait_for(setup.delivery.room(), 10)
    assert setup.kept() != []


async def test_replays_do_not_hold_publishers_back() -> None:
    setup = Setup()
    endless, _ = Reader(setup), Reader(setup)
    endless.instead = lambda: setup.delivery.again(endless)
    endless.weight = 1
    setup.delivery.again(endless)
    setup.publish(b"x" * (MAX_BACKLOG_BYTES + 1))
    await asyncio.wait_for(setup.delivery.room(), 10)
    assert None in setup.delivery._rounds
    endless.instead = None
    await setup.delivered()


# What all lagging clients hold.


async def test_feeds_hold_a_bounded_number_of_bytes_that_nobody_else_has() -> None:
    setup = Setup(lag_bytes=100 * ONE)
    readers = [Reader(setup, room=0)]
    feeds = [setup.feed]
    for _ in range(19):
        setup.feed = Feed(TO_NEWS)
        feeds.append(setup.feed)
        readers.append(Reader(setup, room=0))
    position = 0
    for feed, reader in zip(feeds, readers, strict=True):
        reader.instead, reader.stalled = (lambda: None), True
        feed.behind[reader] = None
        for _ in range(50):
            position += 1
            setup.delivery.append(feed, Entry(position, None, ("news",), b"0" * 10), 0.0)
    await setup.delivered()
    setup.delivery.relieve(feeds, 0)  # the history has all of it
    assert {len(feed.entries) for feed in feeds} == {50}
    setup.delivery.relieve(feeds, 7 * 50)  # seven hold less than they may together
    assert {len(feed.entries) for feed in feeds} == {50}
    setup.delivery.relieve(feeds, 10 * 50)
    assert [len(feed.entries) for feed in feeds] == [40] * 10 + [50] * 10
    setup.delivery.relieve(feeds, 20 * 50)
    assert sum(feed.size for feed in feeds) <= HELD_SHARES * 100 * ONE
    assert {len(feed.entries) for feed in feeds} == {20}
    readers[0].stalled = False  # whose turn comes
    setup.delivery.append(feeds[0], Entry(2000, None, ("news",), b"x" * 100_000), 0.0)
    await setup.delivered()
    setup.delivery.relieve(feeds, 2000)
    assert len(feeds[0].entries) == 21
