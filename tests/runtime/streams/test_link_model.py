"""Random lives of three links on one feed, held step by step against what they were asked for.

Every frame has a number of its own, in the order in which the frames came about. After each step all that was written
is read anew: whole frames that somebody asked for, then the beginning of one at the most, whose rest the link has.
Delivery has its turn where the machine says so.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from parts import TO_NEWS, Paper, Streams, check_promises
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry
from ssepool.core.frames import Dialect
from ssepool.core.states import LinkState, Reason

pytestmark = pytest.mark.timeout(360)  # it takes seconds; a failure may take minutes to be made short

CLIENTS = 3
ROOM = st.sampled_from([10**9, 0, 10**9, 5, 10**9, 25])
WHO = st.integers(0, CLIENTS - 1)
WHO_LEAVES = st.sampled_from([None] * 12 + [*range(CLIENTS)])
"""Nobody most of the time, so that lives are long."""


class Noting(Dialect):
    """Remembers what was said: gaps and goodbyes."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[bytes, str] = {}

    def gap(self, *args: Any, **more: Any) -> bytes:
        frame = super().gap(*args, **more)
        self.said[frame] = "gap"
        return frame

    def closed(self, *args: Any, **more: Any) -> bytes:
        frame = super().closed(*args, **more)
        self.said[frame] = "goodbye"
        return frame


class Client:
    """A link, and what it was asked for."""

    def __init__(self, streams: Streams, frames: dict[bytes, str]) -> None:
        self.dialect = Noting()
        self.frames = frames
        self.link = Paper(streams.links, self.dialect)
        self.slot = streams.give_slot(self.link)
        self.link.owner = self
        streams.feeds.join(self.link, TO_NEWS)
        self.own: dict[str, list[int]] = {"pushed": [], "sent": []}
        self.finishing = self.finished = False
        self.cut: bytes | None = None
        """What had been written when the transport broke."""
        self.ended: list[Reason] = []

    def link_ended(self, reason: Reason) -> None:
        self.ended.append(reason)

    def read(self, data: bytes) -> tuple[list[tuple[str, int]], bytes]:
        """The frames in what was written, by kind and number, but for heartbeats; and what is behind the last one."""
        found: list[tuple[str, int]] = []
        while data:
            if data.startswith(self.dialect.heartbeat):
                data = data.removeprefix(self.dialect.heartbeat)
                continue
            frame, end, behind = data.partition(b"\n\n")
            name = {**self.frames, **self.dialect.said}.get(frame + end)
            if name is None:
                break
            kind, _, number = name.partition(" ")
            found.append((kind, int(number or 0)))
            data = behind
        return found, data

    def numbers(self, kind: str, data: bytes) -> list[int]:
        return [number for found, number in self.read(data)[0] if found == kind]


class LinksAndModel(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(["skip", "latest", "disconnect"]),
        max_entries=st.sampled_from([10_000, 1, 3]),
        rooms=st.lists(ROOM, min_size=CLIENTS, max_size=CLIENTS),
    )
    def begin(self, policy: Any, max_entries: int, rooms: list[int]) -> None:
        self.policy = policy
        self.streams = Streams(lag_policy=policy, lag_events=max_entries)
        self.streams.delivery._schedule = lambda: None  # type: ignore[method-assign]
        self.frames: dict[bytes, str] = {}
        self.published: list[int] = []
        self.clients = [Client(self.streams, self.frames) for _ in range(CLIENTS)]
        for client, room in zip(self.clients, rooms, strict=True):
            client.link.room_left = room

    def frame(self, kind: str) -> tuple[int, bytes]:
        number = len(self.frames)
        frame = b"data: %d %s\n\n" % (number, b"x" * (number * 7 % 30))
        self.frames[frame] = f"{kind} {number}"
        return number, frame

    def leaving(self, place: int | None) -> list[Client]:
        return [] if place is None else [self.clients[place]]

    # The steps.

    @rule(count=st.integers(1, 4), topics=st.lists(st.sampled_from("ab"), min_size=4, max_size=4))
    def publish(self, count: int, topics: list[str]) -> None:
        for topic in topics[:count]:
            number, frame = self.frame("published")
            self.published.append(number)
            self.streams.feeds.dispatch([Entry(number, None, ("news", topic), chunk(frame))])

    @rule()
    def deliver(self) -> None:
        self.streams.delivery._slice()
        assert not self.streams.delivery._rounds

    @rule(place=WHO, flushed=st.booleans())
    def push(self, place: int, flushed: bool) -> None:
        client = self.clients[place]
        number, frame = self.frame("pushed")
        if not client.link.is_leaving:
            client.own["pushed"].append(number)
        client.link.push(frame)
        if flushed:
            client.link.flush()

    @rule(place=WHO)
    def send(self, place: int) -> None:
        client = self.clients[place]
        number, frame = self.frame("sent")
        if not client.link.is_leaving:
            client.own["sent"].append(number)
        client.link.send(frame)

    @rule(place=WHO)
    def beat(self, place: int) -> None:
        self.clients[place].link.beat()

    @rule(place=WHO, room=ROOM)
    def have_room_for_so_much(self, place: int, room: int) -> None:
        self.clients[place].link.room_left = room

    @rule(place=WHO, room=ROOM)
    def make_room(self, place: int, room: int) -> None:
        link = self.clients[place].link
        if link.stalled and not link.ended:
            link.make_room(room)

    @rule(place=WHO_LEAVES, reason=st.sampled_from([Reason.COMPLETED, Reason.ERROR]))
    def finish(self, place: int | None, reason: Reason) -> None:
        for client in self.leaving(place):
            client.finishing |= not client.link.is_leaving
            client.link.finish(reason)

    @rule(place=WHO_LEAVES)
    def close(self, place: int | None) -> None:
        for client in self.leaving(place):
            client.finishing &= client.link.is_leaving
            client.link.close(Reason.KICKED)

    @rule(place=WHO_LEAVES)
    def part(self, place: int | None) -> None:
        for client in self.leaving(place):
            client.finishing &= client.link.is_leaving
            client.link.part(client.dialect.closed("pool_full", retry=1))

    @rule(place=WHO_LEAVES)
    def end(self, place: int | None) -> None:
        for client in self.leaving(place):
            if not client.link.ended:
                client.cut = client.link.written
            client.link.end(Reason.CLIENT_CLOSED)

    # What always holds.

    @invariant()
    def each_state_keeps_its_promises(self) -> None:
        for client in self.clients:
            check_promises(client.link)
            assert len(client.ended) == client.link.ended

    @invariant()
    def nothing_is_written_inside_a_frame(self) -> None:
        for client in self.clients:
            link = client.link
            _, behind = client.read(link.written)
            if client.cut is not None:
                assert link.written == client.cut
            elif behind:
                assert link.stalled
                assert link.rest is not None
            if link.rest is not None:
                assert client.read(link.written + bytes(link.rest))[1] == b""

    @invariant()
    def everything_comes_in_order_and_once(self) -> None:
        for client in self.clients:
            frames, _ = client.read(client.link.written)
            for kind, asked in client.own.items():
                numbers = [number for found, number in frames if found == kind]
                assert numbers == asked[: len(numbers)]
            published = [number for found, number in frames if found == "published"]
            assert published == sorted(set(published))
            last_sent = -1
            for found, number in frames:
                if found == "sent":
                    last_sent = number
                elif found == "published":
                    assert number > last_sent  # it came later
            if self.policy != "latest":
                mixed = [number for found, number in frames if found in ("sent", "published")]
                assert mixed == sorted(mixed)

    @invariant()
    def nothing_comes_behind_the_goodbye(self) -> None:
        for client in self.clients:
            kinds = [kind for kind, _ in client.read(client.link.written)[0]]
            assert "goodbye" not in kinds[:-1]

    @invariant()
    def who_follows_has_everything(self) -> None:
        for client in self.clients:
            link = client.link
            if link.state is LinkState.FOLLOWING and link.feed is not None and client.slot.cursor == link.feed.head:
                self.check_complete(client, link.written)

    @invariant()
    def who_finishes_has_everything_before_the_goodbye(self) -> None:
        for client in self.clients:
            link = client.link
            if client.finishing and not client.finished and link.is_leaving and client.cut is None:
                client.finished = True
                pending = bytes(link.rest or b"") + b"".join(link.outbox or ())
                if b'"lagged"}' not in link.written + pending:
                    self.check_complete(client, link.written + pending)

    @invariant()
    def who_has_been_said_goodbye_has_what_was_for_it_alone(self) -> None:
        for client in self.clients:
            if client.link.ended and client.cut is None:
                assert client.ended == [Reason.COMPLETED]
                assert client.read(client.link.written)[0][-1][0] == "goodbye"
                for kind, asked in client.own.items():
                    assert client.numbers(kind, client.link.written) == asked

    def check_complete(self, client: Client, data: bytes) -> None:
        for kind, asked in client.own.items():
            assert client.numbers(kind, data) == asked
        assert len(client.numbers("published", data)) + client.slot.skipped == len(self.published)

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        self.deliver()
        for client in self.clients:
            if not client.link.ended:
                client.link.make_room()
                assert client.link.state in (LinkState.FOLLOWING, LinkState.ENDED)
                if client.link.feed is not None:
                    self.check_complete(client, client.link.written)
        self.nothing_is_written_inside_a_frame()
        self.everything_comes_in_order_and_once()
        self.nothing_comes_behind_the_goodbye()
        self.who_has_been_said_goodbye_has_what_was_for_it_alone()
        self.publish(1, ["a"] * 4)
        self.deliver()
        assert [feed.entries for feed in self.streams.feeds.listeners("news")] == [[]]
        for client in self.clients:
            client.link.end(Reason.SHUTDOWN)


TestLinksAndModel = LinksAndModel.TestCase
TestLinksAndModel.settings = settings(max_examples=150, stateful_step_count=50)
