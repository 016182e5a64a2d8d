"""Links without a transport: what is written next, and what is owed to a client that stalls at an awkward moment."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import pytest

from parts import NEWS, Paper, Streams, bound, connection_of, delivered, running, until
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, comment
from ssepool.core.frames import COMPLETED_ID, FAILED_ID, Dialect
from ssepool.core.slot import NEVER
from ssepool.core.states import LINK_STEPS, IllegalStep, LinkState, Reason, SlotState
from ssepool.core.topics import Subscription
from ssepool.runtime.admission.admission import welcome
from ssepool.runtime.streams.link import OUTBOX_BYTES, OUTBOX_FRAMES, Link, reason_of

NEW, OPEN, FOLLOWING = LinkState.NEW, LinkState.OPEN, LinkState.FOLLOWING
FINISHING, ENDING, ENDED = LinkState.FINISHING, LinkState.ENDING, LinkState.ENDED
OWN = b"data: own\n\n"


@pytest.fixture
def streams() -> Streams:
    return Streams()


class Still(Paper):
    """A link whose transport has not looked yet at what there is to write."""

    __slots__ = ()

    def flush(self) -> None:
        pass


class Told:
    """The owner of a link."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def link_ended(self, reason: Reason) -> None:
        self.reasons.append(reason)


class Pages:
    """A backlog of so many pages, of one event each."""

    def __init__(self, *pages: bytes) -> None:
        self.pages = list(pages)
        self.taken = 0
        self.waiting = True
        """For more, which does not come."""

    def next(self, link: Link) -> bytes:
        self.taken = len(self.pages[:1])
        return self.pages.pop(0) if self.pages else b""


def still(streams: Streams, state: LinkState) -> Still:
    """A link in this state."""
    link = Still(streams.links)
    streams.give_slot(link)
    link.state = NEW
    if state is not NEW:
        link.become(OPEN)
    if state is FOLLOWING:
        streams.feeds.join(link, NEWS.subscription)  # type: ignore[arg-type]
        link.take()
    elif state is FINISHING:
        link.finish(Reason.COMPLETED)
    elif state in (ENDING, ENDED):
        link.part(b"data: last\n\n")
        if state is ENDED:
            link.end(Reason.CLIENT_CLOSED)
    assert link.state is state
    return link


# Its states.


@pytest.mark.parametrize("new", LinkState)
@pytest.mark.parametrize("old", LinkState)
def test_a_step_that_the_table_does_not_have_changes_nothing(streams: Streams, old: LinkState, new: LinkState) -> None:
    link = still(streams, old)
    if new in LINK_STEPS[old]:
        link.become(new)
        assert link.state is new
    else:
        with pytest.raises(IllegalStep, match=f"LinkState {old.name} leads to"):
            link.become(new)
        assert link.state is old


STEPS: dict[str, Callable[[Link], None]] = {
    "part": lambda link: link.part(b"data: last\n\n"),
    "close": lambda link: link.close(Reason.KICKED),
    "finish": lambda link: link.finish(Reason.COMPLETED),
    "end": lambda link: link.end(Reason.ERROR),
    "push": lambda link: link.push(OWN),
    "send": lambda link: link.send(OWN),
    "stall": lambda link: link.stall(),
}
LEADS_TO = """
              part       close      finish     end    push       send       stall
    NEW       illegal    illegal    NEW        ENDED  NEW        NEW        NEW
    OPEN      ENDING     ENDING     FINISHING  ENDED  OPEN       OPEN       OPEN
    FOLLOWING ENDING     ENDING     FINISHING  ENDED  OPEN       OPEN       OPEN
    FINISHING ENDING     ENDING     FINISHING  ENDED  FINISHING  FINISHING  FINISHING
    ENDING    ENDING     ENDING     ENDING     ENDED  ENDING     ENDING     ENDING
"""
CASES = [
    (LinkState[state], step, expected)
    for steps, *lines in [[line.split() for line in LEADS_TO.strip().splitlines()]]
    for state, *states in lines
    for step, expected in zip(steps, states, strict=True)
]


@pytest.mark.parametrize(("state", "step", "expected"), CASES)
def test_what_is_asked_of_a_link_leads_where_the_table_says(
    streams: Streams, state: LinkState, step: str, expected: str
) -> None:
    link = still(streams, state)
    if expected == "illegal":
        with pytest.raises(IllegalStep):
            STEPS[step](link)
        assert link.state is state
    else:
        STEPS[step](link)
        assert link.state is LinkState[expected]


@pytest.mark.parametrize("state", [ENDING, ENDED])
@pytest.mark.parametrize("step", [*STEPS, "beat"])
def test_nothing_is_written_behind_the_goodbye(streams: Streams, state: LinkState, step: str) -> None:
    link = still(streams, state)
    {**STEPS, "beat": lambda link: link.beat()}[step](link)
    assert link.outbox == ([b"data: last\n\n"] if state is ENDING and step != "end" else None)
    assert not link.held


@pytest.mark.parametrize("state", [state for state in LinkState if state is not ENDED])
def test_an_end_is_told_once_and_gives_everything_back(streams: Streams, state: LinkState) -> None:
    link = still(streams, state)
    link.owner = owner = Told()
    link.end(Reason.PEER_DEAD)
    link.end(Reason.ERROR)
    assert owner.reasons == [Reason.PEER_DEAD]
    assert link.slot is None


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link.push(OWN),
        lambda link: link.finish(Reason.COMPLETED),
        lambda link: link.close(Reason.KICKED),
        lambda link: link.end(Reason.CLIENT_CLOSED),
        lambda link: link.stall(),
    ],
)
def test_a_link_that_has_more_to_do_than_to_follow_its_feed_does_not_just_follow_it(
    streams: Streams, change: Callable[[Link], None]
) -> None:
    link = streams.paper()
    assert link.state is FOLLOWING
    change(link)
    assert link.state is not FOLLOWING


async def test_a_link_with_an_event_of_its_own_that_waits_for_its_place_does_not_just_follow_it(
    streams: Streams,
) -> None:
    link = streams.paper()
    link.room_left = 0
    streams.publish("first")
    await delivered(streams)
    assert link.stalled
    link.send(OWN)
    assert link.state is not FOLLOWING
    link.make_room()
    assert link.state is FOLLOWING
    assert link.events() == ["first", "own"]


# What is written, in which order.


async def test_nothing_is_written_inside_a_frame_that_was_cut_in_two(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 10
    streams.publish("first", "second")
    await delivered(streams)
    assert link.stalled
    link.push(OWN)
    link.beat()
    link.make_room(3)
    assert link.stalled
    link.make_room()
    assert link.events() == ["first", "own", "second"]


async def test_an_own_event_stays_between_what_was_published_before_and_after_it(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 0
    streams.publish("1", "2")
    link.send(b"data: own 3\n\n")
    link.send(b"data: own 4\n\n")
    streams.publish("5")
    link.send(b"data: own 6\n\n")
    await delivered(streams)
    link.make_room()
    assert link.events() == ["1", "2", "own 3", "own 4", "5", "own 6"]


async def test_own_events_keep_their_order_where_the_feed_has_just_been_read_to_its_end(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 0
    streams.publish("1")
    link.send(b"data: own 2\n\n")
    link.make_room(3)
    assert link.cursor == link.feed.head  # type: ignore[union-attr]
    link.send(b"data: own 3\n\n")
    link.make_room()
    assert link.events() == ["1", "own 2", "own 3"]
    await delivered(streams)


async def test_what_was_missed_comes_before_what_is_live_and_behind_what_is_for_the_client_alone(
    streams: Streams,
) -> None:
    link = Paper(streams.links)
    slot = streams.give_slot(link)
    link.replay = Pages(b"data: 1\n\n", b"data: 2\n\n")
    link.push(OWN)
    link.flush()
    assert link.events() == ["own", "1", "2"]
    assert slot.events == 2


async def test_a_replay_counts_as_activity(streams: Streams) -> None:
    link = Paper(streams.links)
    slot = streams.give_slot(link)
    slot.sent_at = -1.0
    link.replay = Pages()
    link.flush()
    assert slot.sent_at == -1.0  # nothing was found
    link.replay = Pages(b"data: 1\n\n")
    link.flush()
    assert slot.sent_at == streams.now()


async def test_a_client_that_stalls_before_it_joins_its_feed_loses_nothing(streams: Streams) -> None:
    link = Paper(streams.links)
    streams.give_slot(link)
    link.room_left = 5
    link.send(OWN)
    assert link.stalled
    streams.feeds.join(link, NEWS.subscription)  # type: ignore[arg-type]
    for number in range(3):
        streams.publish(f"event {number}")
        await delivered(streams)
    link.make_room()
    assert link.events() == ["own", "event 0", "event 1", "event 2"]


async def test_a_client_that_stalls_before_it_has_a_slot_is_judged_by_send_timeout() -> None:
    async with running() as engine:
        link = Paper(engine.links)
        slot = bound(engine, link)
        link.stall()  # since it waited in the queue
        await welcome(engine, connection_of(link), link, NEWS)
        assert slot.blocked_at < NEVER
        due = engine.now() + engine.config.pool.send_timeout
        assert engine.pool.reap(due).evict == [(slot, Reason.SEND_TIMEOUT)]


async def test_a_feed_keeps_nothing_once_nobody_is_behind(streams: Streams) -> None:
    slow, fast = streams.paper(), streams.paper()
    assert fast.feed is slow.feed is not None
    slow.room_left = 0
    for number in range(5):
        streams.publish(str(number))
        await delivered(streams)
    assert len(fast.feed.entries) == 5
    slow.make_room()
    assert slow.events() == fast.events()
    assert fast.feed.entries == []


def test_a_stall_is_judged_only_while_the_slot_is_open(streams: Streams) -> None:
    link = streams.paper()
    slot = link.slot
    assert slot is not None
    link.stall()
    assert slot.blocked_at == streams.now()
    link.go_on()
    assert slot.blocked_at == NEVER
    link.stall()
    link.close(Reason.KICKED)
    link.go_on()
    link.stall()  # its time to go has been set by `closing`
    assert (slot.state, slot.blocked_at) == (SlotState.CLOSING, NEVER)


# Heartbeats.


@pytest.mark.parametrize(
    ("before", "beats"),
    [
        (lambda link: None, True),
        (lambda link: link.push(OWN), False),
        (lambda link: link.stall(), False),
        (lambda link: link.part(OWN), False),
        (lambda link: link.end(Reason.ERROR), False),
    ],
    ids=["quiet", "about to write", "stalled", "parting", "ended"],
)
def test_a_heartbeat_is_written_where_nothing_else_is_about_to_be(
    streams: Streams, before: Callable[[Link], None], beats: bool
) -> None:
    link = streams.paper()
    before(link)
    link.beat()
    link.end(Reason.CLIENT_CLOSED)
    assert (b": heartbeat\n" in link.written) is beats


# Goodbyes.


class Own(Dialect):
    """How another hub would speak."""

    heartbeat = comment("still here")

    def gap(self, requested: str | None, resumed: str | None, reason: str, **more: Any) -> bytes:
        return b"event: hole\ndata: %s\n\n" % reason.encode()

    def closed(self, reason: str, *, retry: int | None, id: str | None = None) -> bytes:
        return f"event: bye\ndata: {reason} {retry} {id}\n\n".encode()


async def test_all_that_the_hub_says_is_said_in_the_dialect_of_the_client() -> None:
    streams = Streams(lag_events=1)
    link = Paper(streams.links, Own())
    streams.give_slot(link)
    streams.feeds.join(link, NEWS.subscription)  # type: ignore[arg-type]
    link.beat()
    link.room_left = 0
    streams.publish("1", "2")
    await delivered(streams)
    link.make_room()
    link.close(Reason.KICKED)
    expected = b": still here\nevent: hole\ndata: lagged\n\ndata: 2\n\n"
    assert link.written == expected + b"event: bye\ndata: kicked 4321 None\n\n"


@pytest.mark.parametrize(
    ("goodbye", "reason", "said"),
    [
        (lambda link: link.close(Reason.KICKED), Reason.KICKED, "kicked 4321 None"),
        (lambda link: link.close(Reason.SHUTDOWN), Reason.SHUTDOWN, "shutdown 4321 None"),
        (lambda link: link.finish(Reason.COMPLETED), Reason.COMPLETED, f"completed None {COMPLETED_ID}"),
        (lambda link: link.close(Reason.COMPLETED), Reason.COMPLETED, f"completed None {COMPLETED_ID}"),
        (lambda link: link.finish(Reason.ERROR), Reason.ERROR, f"error None {FAILED_ID}"),
    ],
)
def test_who_is_sent_away_is_told_when_to_come_back_and_who_has_everything_is_not(
    streams: Streams, goodbye: Callable[[Link], None], reason: Reason, said: str
) -> None:
    link = Paper(streams.links, Own())
    slot = streams.give_slot(link)
    goodbye(link)
    assert link.written == f"event: bye\ndata: {said}\n\n".encode()
    assert (slot.state, slot.reason) == (SlotState.CLOSING, reason)
    assert link.ended


async def test_a_stream_that_finishes_has_all_that_is_pending_before_it_ends(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 5
    streams.publish("1")
    await delivered(streams)
    link.send(b"data: own\n\n")
    link.finish(Reason.COMPLETED)
    streams.publish("2")
    await delivered(streams)
    link.make_room()
    assert link.events() == ["1", "own", "2", "ssepool.close"]


async def test_a_stream_that_is_closed_ends_at_once_but_for_what_is_for_the_client_alone(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 5
    streams.publish("1")
    await delivered(streams)
    streams.publish("2")
    link.send(b"data: own\n\n")
    link.close(Reason.KICKED)
    assert link.state is ENDING
    link.make_room()
    assert link.events() == ["1", "own", "ssepool.close"]
    await delivered(streams)


# Lag.


@pytest.mark.parametrize(
    ("policy", "expected", "skipped", "events"),
    [
        ("skip", ["a0", "ssepool.gap", "b4"], 3, 2),
        ("latest", ["a0", "ssepool.gap", "a3", "b4"], 2, 3),
        ("disconnect", ["a0", "ssepool.close"], 0, 1),
    ],
)
async def test_a_client_that_has_fallen_off_gets_what_the_policy_says(
    policy: Any, expected: list[str], skipped: int, events: int
) -> None:
    streams = Streams(lag_policy=policy, lag_events=1)
    link = streams.paper(Subscription.of(["a", "b"]))
    slot = link.slot
    assert slot is not None
    link.room_left = 5
    for data in ("a0", "a1", "b2", "a3", "b4"):
        streams.feeds.dispatch([Entry(0, data, (data[0],), chunk(b"data: %s\n\n" % data.encode()))])
        if data == "a0":
            await delivered(streams)
    await delivered(streams)
    link.make_room()
    assert link.events() == expected
    assert (slot.skipped, slot.events) == (skipped, events)
    if policy != "disconnect":
        assert b'"resumed":"%s"' % (b"a3" if policy == "latest" else b"b4") in link.written
        assert link.state is FOLLOWING


# Room for what is for the client alone.


FULL = [pytest.param([b"x"] * OUTBOX_FRAMES, id="frames"), pytest.param([b"x" * OUTBOX_BYTES], id="bytes")]


@pytest.mark.parametrize("frames", FULL)
async def test_senders_wait_until_the_outbox_has_been_emptied(streams: Streams, frames: list[bytes]) -> None:
    link = streams.paper()
    link.stall()
    for frame in frames[1:]:
        link.push(frame)
    assert not link.full
    await link.room()  # at once
    link.push(frames[0])
    assert link.full
    waiting = [asyncio.create_task(link.room()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    link.make_room()
    await asyncio.gather(*waiting[1:])


async def test_who_finds_the_outbox_full_again_goes_on_waiting(streams: Streams) -> None:
    link = streams.paper()
    link.stall()
    link.push(b"x" * OUTBOX_BYTES)
    waiting = asyncio.create_task(link.room())
    await asyncio.sleep(0)
    link.make_room()
    link.stall()
    link.push(b"x" * OUTBOX_BYTES)  # another sender was faster
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    link.make_room()
    await waiting


async def test_what_waits_for_its_place_fills_the_outbox_too(streams: Streams) -> None:
    link = streams.paper()
    link.room_left = 0
    streams.publish("1")
    link.send(b"x" * OUTBOX_BYTES)
    assert link.full
    waiting = asyncio.create_task(link.room())
    await delivered(streams)
    assert not waiting.done()
    link.make_room()
    await waiting


@pytest.mark.parametrize("how", [lambda link: link.end(Reason.CLIENT_CLOSED), lambda link: link.make_room()])
async def test_nobody_waits_for_a_link_that_has_ended(streams: Streams, how: Callable[[Paper], None]) -> None:
    link = streams.paper()
    link.stall()
    link.push(b"x" * OUTBOX_BYTES)
    waiting = [asyncio.create_task(link.room()) for _ in range(2)]
    await asyncio.sleep(0)
    link.close(Reason.KICKED)
    assert not link.ended
    how(link)
    await asyncio.gather(*waiting)
    assert link.ended
    assert not link.full
    await until(lambda: not link.context.delivery._rounds)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ETIMEDOUT", Reason.PEER_DEAD),
        ("EHOSTUNREACH", Reason.PEER_DEAD),
        ("ENETUNREACH", Reason.PEER_DEAD),
        ("ENETDOWN", Reason.PEER_DEAD),
        ("EHOSTDOWN", Reason.PEER_DEAD),
        ("ECONNRESET", Reason.CLIENT_CLOSED),
        ("EPIPE", Reason.CLIENT_CLOSED),
        ("ECONNABORTED", Reason.CLIENT_CLOSED),
        (None, Reason.CLIENT_CLOSED),
    ],
)
def test_what_an_error_says_of_the_client(name: str | None, reason: Reason) -> None:
    assert reason_of(getattr(errno, name) if name else 0) is reason
