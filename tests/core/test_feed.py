"""Feeds: what a cursor reads, what is shared, what is cut off the tail and what is never cut."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.config import MiB
from ssepool.core import feed as feed_module
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, encode, memory_of
from ssepool.core.feed import JOIN_BYTES, MAX_JOINING_FEEDS, MAX_JOINS, Feed, Joins, joined
from ssepool.core.topics import Subscription

NEWS = Subscription.of(["news", "sport"])
NO_BOUND = 10**9
ONE = memory_of(b"0" * 10, ["news"])
"""Bytes of an entry of `feed_of`."""


def entry(number: int, data: str = "", topics: Sequence[str] = ("news",)) -> Entry:
    return Entry(number, str(number), tuple(topics), encode(data or str(number), id=str(number)))


def feed_of(count: int, *, size: int = 10) -> Feed:
    """A feed with entries 1, 2, ...; an entry's number is the cursor behind it."""
    feed = Feed(NEWS)
    for number in range(1, count + 1):
        feed.append(Entry(number, None, ("news",), b"%0*d" % (size, number)), float(number))
    return feed


def numbers(entries: Sequence[Entry]) -> list[int]:
    return [entry.position for entry in entries]


def trim(
    feed: Feed,
    slowest: int,
    healthy: int | None = None,
    *,
    max_entries: int = NO_BOUND,
    max_bytes: int = NO_BOUND,
    keep_latest: bool = False,
) -> None:
    """`Feed.trim` without bounds, unless given, and with everybody stalled, unless told."""
    feed.trim(
        slowest,
        feed.head if healthy is None else healthy,
        max_entries=max_entries,
        max_bytes=max_bytes,
        keep_latest=keep_latest,
    )
    assert feed.size == sum(entry.size for entry in feed.entries)
    assert feed.first == feed.head - len(feed.entries)


# Appending and reading.


def test_a_new_feed_is_empty() -> None:
    feed = Feed(NEWS)
    assert (feed.head, feed.first, feed.size, feed.entries) == (0, 0, 0, [])
    assert feed.read(0) == (b"", 0)
    assert feed.appended_at == float("-inf")
    assert feed.subscription is NEWS


def test_appending_moves_the_head_and_counts_bytes() -> None:
    feed = Feed(NEWS)
    first, second = entry(1, "a"), entry(2, "bcd")
    feed.append(first, 5.0)
    feed.append(second, 7.0)
    assert (feed.head, feed.first, feed.appended_at) == (2, 0, 7.0)
    assert feed.size == first.size + second.size
    assert feed.entries == [first, second]


@pytest.mark.parametrize("cursor", range(6))
def test_a_read_joins_all_frames_from_the_cursor_to_the_head(cursor: int) -> None:
    feed = feed_of(5)
    data, behind = feed.read(cursor)
    assert data == b"".join(entry.chunk for entry in feed.entries[cursor:])
    assert behind == 5


def test_readers_at_one_cursor_share_one_join() -> None:
    feed = feed_of(5)
    first, second = feed.read(2), feed.read(0)
    assert feed.read(2)[0] is first[0]
    assert feed.read(0)[0] is second[0]


def test_who_knows_no_chunks_gets_the_frames_and_shares_them_too() -> None:
    feed = feed_of(0)
    for number in range(3):
        feed.append(Entry(number, None, ("news",), chunk(b"frame %d" % number)), 0.0)
    assert feed.read(1) == (chunk(b"frame 1") + chunk(b"frame 2"), 3)
    assert feed.read(1, None, False) == (b"frame 1frame 2", 3)
    assert feed.read(1, None, False)[0] is feed.read(1, None, False)[0]
    assert feed.read(0, 1, False) == (b"frame 0", 1)
    assert feed.split(1, 9, False) == (3, b"ame 2")
    assert feed.split(1, 7, False) == (2, b"")
    assert feed.split(1, 14) == (3, chunk(b"frame 2")[2:])
    feed.append(Entry(3, None, ("news",), chunk(b"more")), 0.0)
    assert feed.read(2, None, False) == (b"frame 2more", 4)


def test_a_single_frame_is_joined_without_a_copy() -> None:
    feed = feed_of(5)
    assert feed.read(4)[0] is feed.entries[4].chunk


def test_what_is_appended_joins_in_at_the_next_read() -> None:
    feed = feed_of(2)
    assert feed.read(1) == (b"0000000002", 2)
    feed.append(entry(3, "x"), 3.0)
    assert feed.read(1) == (b"0000000002" + feed.entries[2].chunk, 3)


def test_a_read_joins_a_bounded_number_of_bytes() -> None:
    feed = feed_of(10, size=JOIN_BYTES // 4)
    data, behind = feed.read(1)
    assert (len(data), behind) == (JOIN_BYTES, 5)
    assert feed.read(1)[0] is data
    cursor, cursors = 0, []
    while cursor < feed.head:
        cursor = feed.read(cursor)[1]
        cursors.append(cursor)
    assert cursors == [4, 8, 10]


def test_a_frame_above_the_bound_is_read_alone_and_without_a_copy() -> None:
    feed = feed_of(3, size=JOIN_BYTES + 1)
    assert feed.read(1) == (feed.entries[1].chunk, 2)
    assert feed.read(1)[0] is feed.entries[1].chunk


@pytest.mark.parametrize("until", range(2, 7))
def test_a_read_may_end_at_a_cursor_and_then_leaves_shared_joins_alone(until: int) -> None:
    feed = feed_of(5)
    shared = feed.read(2)
    assert feed.read(2, until) == (joined(feed.entries[2:until], True), min(until, 5))
    assert feed.read(2) is shared


def test_a_feed_keeps_a_bounded_number_of_joins() -> None:
    # 1,000 slow clients at cursors of their own must not make a feed keep 1,000 joins.
    feed = feed_of(1000, size=100)
    for cursor in range(1000):
        feed.read(cursor)
        assert len(feed._joined) <= MAX_JOINS


@pytest.mark.parametrize("cursor", [-1, 0, 2, 6, 100])
def test_a_cursor_outside_the_feed_is_an_error_and_never_the_wrong_bytes(cursor: int) -> None:
    feed = feed_of(5)
    trim(feed, 3)
    with pytest.raises(IndexError, match=rf"^cursor {cursor} is not from 3 to 5$"):
        feed.read(cursor)


def test_joined_frames_are_the_frames_in_order() -> None:
    assert joined([entry(1), entry(2)], True) == b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"


def test_a_feed_shows_itself() -> None:
    feed = feed_of(3)
    feed.members[object()] = None
    assert repr(feed) == "<Feed head=3 kept=3 members=1>"


# Half-written reads.


@pytest.mark.parametrize(
    ("written", "cursor", "rest"),
    [
        (0, 1, b""),
        (1, 2, b"000000002"),
        (9, 2, b"2"),
        (10, 2, b""),
        (11, 3, b"000000003"),
        (20, 3, b""),
        (39, 5, b"5"),
        (40, 5, b""),
    ],
)
def test_a_read_that_was_cut_goes_on_behind_the_frame_that_was_cut_in_two(
    written: int, cursor: int, rest: bytes
) -> None:
    assert feed_of(5).split(1, written) == (cursor, rest)


def test_split_counts_from_the_tail_of_a_trimmed_feed() -> None:
    feed = feed_of(5)
    trim(feed, 3)
    assert feed.split(3, 13) == (5, b"0000005")


def test_the_rest_of_a_frame_is_not_a_copy() -> None:
    feed = feed_of(2)
    _, rest = feed.split(0, 4)
    assert rest.obj is feed.entries[0].chunk


# Cutting the tail.


def test_what_no_cursor_needs_is_dropped() -> None:
    feed = feed_of(5)
    trim(feed, 3)
    assert (numbers(feed.entries), feed.first, feed.head) == ([4, 5], 3, 5)
    assert feed.read(3) == (b"00000000040000000005", 5)


def test_what_the_slowest_needs_is_kept_within_the_bounds() -> None:
    feed = feed_of(5)
    trim(feed, 1, max_entries=4, max_bytes=4 * ONE)
    assert numbers(feed.entries) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("bound", "kept"), [({"max_entries": 2}, [4, 5]), ({"max_bytes": 3 * ONE}, [3, 4, 5]), ({"max_entries": 0}, [])]
)
def test_beyond_the_bounds_the_oldest_goes_although_a_stalled_client_needs_it(
    bound: dict[str, int], kept: list[int]
) -> None:
    feed = feed_of(5)
    trim(feed, 0, **bound)  # type: ignore[arg-type]
    assert numbers(feed.entries) == kept


def test_the_tighter_bound_decides() -> None:
    feed = feed_of(10)
    trim(feed, 0, max_entries=7, max_bytes=4 * ONE)
    assert numbers(feed.entries) == [7, 8, 9, 10]


@pytest.mark.parametrize("healthy", range(6))
def test_nothing_is_cut_from_under_a_client_that_only_waits_for_its_turn(healthy: int) -> None:
    feed = feed_of(5)
    trim(feed, 0, healthy, max_entries=0, max_bytes=0)
    assert feed.first == healthy
    assert feed.read(healthy)[1] == 5


@pytest.mark.parametrize("healthy", range(3, 11))
def test_nothing_is_cut_from_under_it_in_a_feed_that_has_been_trimmed_before(healthy: int) -> None:
    feed = feed_of(10)
    trim(feed, 3)
    trim(feed, 3, healthy, max_entries=1)
    assert feed.first == min(healthy, 9)


def test_a_cursor_that_has_fallen_off_keeps_nothing() -> None:
    feed = feed_of(5)
    trim(feed, 0, max_entries=2)
    trim(feed, 0)
    assert numbers(feed.entries) == [4, 5]
    trim(feed, 0, max_entries=1)
    assert numbers(feed.entries) == [5]


def test_trimming_all_leaves_an_empty_feed_that_goes_on_counting() -> None:
    feed = feed_of(5)
    trim(feed, 5)
    assert (feed.first, feed.head, feed.size) == (5, 5, 0)
    feed.append(entry(6, "x"), 6.0)
    assert feed.read(5) == (feed.entries[0].chunk, 6)


def test_clearing_keeps_nothing_and_goes_on_counting() -> None:
    feed = feed_of(5)
    feed.read(2)
    trim(feed, 0, max_entries=2, keep_latest=True)
    feed.clear()
    assert (feed.first, feed.head, feed.size, feed.entries) == (5, 5, 0, [])
    assert feed.latest(0) == []
    assert feed.read(5) == (b"", 5)
    feed.clear()
    feed.append(entry(6, "x"), 6.0)
    assert feed.read(5) == (feed.entries[0].chunk, 6)


def test_no_join_outlives_what_it_was_made_of() -> None:
    feed = feed_of(5)
    feed.read(3)
    trim(feed, 3)
    assert feed._joined == {}
    feed.read(3)
    feed.clear()
    assert feed._joined == {}


# Where a client goes on that lagged too far.


def test_skip_goes_on_at_the_newest_entry_that_is_kept() -> None:
    feed = feed_of(5)
    assert feed.newest() == 4
    trim(feed, 0, max_entries=0)
    assert feed.newest() == feed.head == 5
    assert Feed(NEWS).newest() == 0


def test_latest_gives_the_newest_of_each_topic_in_order() -> None:
    feed = Feed(NEWS)
    for number, topic in enumerate(["news", "sport", "news", "weather", "news"], 1):
        feed.append(entry(number, topics=[topic]), 0.0)
    assert numbers(feed.latest(0)) == [2, 4, 5]


def test_latest_remembers_topics_whose_newest_entry_was_cut() -> None:
    feed = Feed(NEWS)
    for number, topic in enumerate(["sport", "news", "weather", "news", "news"], 1):
        feed.append(entry(number, topics=[topic]), 0.0)
    trim(feed, 0, max_entries=1, keep_latest=True)
    assert numbers(feed.entries) == [5]
    assert numbers(feed.latest(0)) == [1, 3, 5]


def test_an_event_of_several_topics_comes_once() -> None:
    feed = Feed(NEWS)
    feed.append(entry(1, topics=["news", "sport"]), 0.0)
    feed.append(entry(2, topics=["sport"]), 0.0)
    feed.append(entry(3, topics=["weather", "sport"]), 0.0)
    trim(feed, 0, max_entries=1, keep_latest=True)
    assert numbers(feed.latest(0)) == [1, 3]


def test_events_that_are_live_only_keep_their_order_among_the_others() -> None:
    # They have no place in the broker's order: their position is 0.
    feed = Feed(NEWS)
    for number, topic in [(7, "a"), (0, "b"), (8, "c"), (0, "d")]:
        feed.append(Entry(number, None, (topic,), topic.encode()), 0.0)
    trim(feed, 0, max_entries=1, keep_latest=True)
    assert joined(feed.latest(0), True) == b"abcd"


def test_latest_gives_a_client_nothing_that_it_has() -> None:
    feed = Feed(NEWS)
    for number, topic in enumerate(["sport", "weather", "news"], 1):
        feed.append(entry(number, topics=[topic]), 0.0)
    trim(feed, 0, max_entries=1, keep_latest=True)
    assert numbers(feed.latest(1)) == [2, 3]
    assert numbers(feed.latest(2)) == [3]


def test_what_was_cut_from_under_one_client_never_comes_again_to_another_that_has_newer() -> None:
    feed = Feed(NEWS)
    feed.append(entry(1), 0.0)
    trim(
        feed, 0, max_entries=0, keep_latest=True
    )  # somebody who stalled at 0 has fallen off and is brought up to date later
    feed.append(entry(2), 0.0)
    feed.append(entry(3, topics=["sport"]), 0.0)
    trim(feed, 2, keep_latest=True)  # all have 2; somebody else stalls there
    feed.append(entry(4, topics=["weather"]), 0.0)
    trim(feed, 2, max_entries=1, keep_latest=True)
    assert numbers(feed.latest(2)) == [3, 4]


def test_what_was_cut_is_forgotten_once_nobody_has_fallen_off() -> None:
    feed = feed_of(5)
    trim(feed, 0, max_entries=2, keep_latest=True)
    assert feed._cut
    trim(feed, 0, keep_latest=True)
    assert feed._cut
    trim(feed, 3, keep_latest=True)
    assert not feed._cut


def test_without_the_policy_latest_nothing_is_remembered() -> None:
    feed = feed_of(5)
    trim(feed, 0, max_entries=2)
    assert not feed._cut


# Readers with sockets that take what they like.


class Reader:
    """A connection: writes what `read` gives as far as its socket takes it, and goes on where `split` says."""

    def __init__(self, cursor: int) -> None:
        self.began = self.cursor = cursor
        self.rest = memoryview(b"")
        self.got = b""

    def write(self, feed: Feed, room: int) -> None:
        if self.rest:
            self.got += self.rest[:room]
            self.rest = self.rest[room:]
        elif self.cursor < feed.head:
            data, behind = feed.read(self.cursor)
            assert self.cursor < behind <= feed.head
            self.got += data[:room]
            if room < len(data):
                self.cursor, self.rest = feed.split(self.cursor, room)
            else:
                self.cursor = behind


FRAMES = st.binary(min_size=1, max_size=20)
STEPS = st.one_of(
    st.tuples(st.just("append"), FRAMES),
    st.tuples(st.just("write"), st.tuples(st.integers(0, 3), st.integers(0, 60))),
    st.tuples(st.just("join"), st.none()),
    st.tuples(st.just("trim"), st.none()),
)


@given(join_bytes=st.sampled_from([1, 25, JOIN_BYTES]), steps=st.lists(STEPS, max_size=60))
def test_readers_that_are_cut_anywhere_reconstruct_the_exact_byte_stream(join_bytes: int, steps: list[Any]) -> None:
    feed, frames, readers = Feed(NEWS), list[bytes](), [Reader(0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_module, "JOIN_BYTES", join_bytes)
        for step, what in steps:
            if step == "append":
                frames.append(what)
                feed.append(Entry(len(frames), None, ("news",), what), 0.0)
            elif step == "join":
                readers.append(Reader(feed.head))
            elif step == "trim":
                trim(feed, min(reader.cursor for reader in readers))
            else:
                readers[what[0] % len(readers)].write(feed, what[1])
            for reader in readers:
                # Between what was got and the cursor lies only the rest of one frame.
                assert reader.got + reader.rest == b"".join(frames[reader.began : reader.cursor])
        for reader in readers:
            while reader.rest or reader.cursor < feed.head:
                reader.write(feed, 7)
            assert reader.got == b"".join(frames[reader.began :])


@given(
    topics=st.lists(st.sets(st.sampled_from("abcd"), min_size=1), max_size=30),
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5)), max_size=10),
    cursor=st.integers(0, 30),
)
def test_latest_is_each_topics_newest_of_what_a_client_lacks(
    topics: list[set[str]], cuts: list[tuple[int, int, int]], cursor: int
) -> None:
    """Whatever was cut while a client was stalled at `cursor`, it is brought up to date as if nothing had been cut."""
    feed, appended = Feed(NEWS), list[Entry]()
    cut_at = {at: (slowest, max_entries) for at, slowest, max_entries in cuts}
    for number, names in enumerate(topics, 1):
        appended.append(entry(number, topics=sorted(names)))
        feed.append(appended[-1], 0.0)
        if number in cut_at:
            slowest, max_entries = cut_at[number]
            # Our client is behind like others; before it came to its cursor it was as fast as anybody.
            feed.trim(
                min(slowest, cursor, feed.head),
                feed.head,
                max_entries=max_entries,
                max_bytes=NO_BOUND,
                keep_latest=True,
            )
    lacks = appended[cursor:]
    newest = {topic: entry for entry in lacks for topic in entry.topics}
    assert feed.latest(cursor) == [entry for entry in lacks if any(newest[topic] is entry for topic in entry.topics)]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(0, 45), st.integers(0, 45), st.integers(0, 10))
def test_a_trim_drops_as_little_as_the_bounds_allow(
    sizes: list[int], slowest: int, healthy: int, max_entries: int
) -> None:
    slowest, healthy = min(slowest, len(sizes)), min(healthy, len(sizes))
    max_bytes = 4 * memory_of(b"", ["news"])
    feed = Feed(NEWS)
    for number, size in enumerate(sizes, 1):
        feed.append(Entry(number, None, ("news",), b"x" * size), 0.0)
    trim(feed, slowest, healthy, max_entries=max_entries, max_bytes=max_bytes)
    first = feed.first
    assert first >= slowest
    if first > slowest:
        assert first <= healthy
        assert (
            len(sizes) - (first - 1) > max_entries
            or sum(memory_of(b"x" * size, ["news"]) for size in sizes[first - 1 :]) > max_bytes
        )
    if first < healthy:
        assert len(feed.entries) <= max_entries
        assert feed.size <= max_bytes
    assert [len(entry.chunk) for entry in feed.entries] == sizes[first:]
    assert all(later == sooner + 1 for sooner, later in itertools.pairwise(numbers(feed.entries)))


# What it takes.


def test_feeds_share_their_entries() -> None:
    entries = [entry(number, "x" * 1000) for number in range(1000)]
    gc.collect()
    tracemalloc.start()
    feeds = [Feed(NEWS) for _ in range(20)]
    for feed in feeds:
        for each in entries:
            feed.append(each, 0.0)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert {feed.size for feed in feeds} == {sum(each.size for each in entries)}
    assert taken < 20 * 1000 * 16  # a place in a list each


@pytest.mark.parametrize("topics", [["news"], [f"t{number}" for number in range(100)]])
def test_what_a_stalled_client_needs_is_bounded_with_all_that_it_takes(topics: list[str]) -> None:
    limit = 2 * MiB
    gc.collect()
    tracemalloc.start()
    feed = Feed(NEWS)
    for number in range(20 * 250 if len(topics) == 1 else 400):
        names = tuple([f"{name}/{number}" for name in topics])
        feed.append(Entry(number, str(number), names, encode("", id=str(number))), 0.0)
        feed.trim(0, feed.head, max_entries=10_000, max_bytes=limit)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert feed.size <= limit
    assert 0.2 * limit < taken <= 1.1 * limit


def test_what_is_remembered_of_each_topic_is_bounded_too() -> None:
    feed, limit = Feed(NEWS), 100 * ONE
    for number in range(1000):
        feed.append(Entry(number, None, (f"{number:04}",), b"0" * 10), 0.0)
        feed.trim(0, feed.head, max_entries=5, max_bytes=limit, keep_latest=True)
    assert numbers(feed.latest(0)) == list(range(895, 1000))  # the newest
    feed.append(Entry(1000, None, ("0899",), b"0" * 10), 0.0)
    feed.append(Entry(1001, None, ("0899",), b"0" * 10), 0.0)
    feed.trim(0, feed.head, max_entries=1, max_bytes=limit, keep_latest=True)
    assert 899 not in numbers(feed.latest(0))
    assert feed._cut_size == sum(kept.size for _, kept in feed._cut.values()) <= limit
    feed.clear()
    assert feed._cut_size == 0


def test_all_feeds_together_keep_a_bounded_number_of_large_joins() -> None:
    joins = Joins()
    feeds = [Feed(NEWS, joins) for _ in range(4 * MAX_JOINING_FEEDS)]
    for feed in feeds:
        for number in range(20):
            feed.append(entry(number, "x" * (JOIN_BYTES // 4)), 0.0)
    for cursor in range(20):
        for feed in feeds:
            feed.read(cursor)
            kept = [data for each in feeds for data, _ in each._joined.values()]
            assert sum(map(len, kept)) <= MAX_JOINING_FEEDS * MAX_JOINS * JOIN_BYTES
    newest = feeds[-1]
    assert newest.read(19)[0] is newest.read(19)[0]
    joins.let_go(newest)
    assert not newest._joined
