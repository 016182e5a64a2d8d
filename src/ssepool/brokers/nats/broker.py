"""Events in NATS JetStream: one stream, and for each append one message.

JetStream stores messages, gives each a number (the *place* of the message), and can store a message on the condition
that a certain place is the newest. The contract asks for more: positions of events, batches that are there whole or not
at all, and events that are dropped one by one. So a message has a batch of events, and says at which position they
begin. A publisher sends it for the place behind the newest message that it knows. If another message has that place
already, the server stores nothing, and the publisher makes its message again. If it was too late several times, it asks
the others to pause.

    <name>.<token>.log                the stream's messages: each is a `Part` of a batch, or all of it
    <name>.<token>.id.<id>.<topics>   the same, for an event with a chosen id; a digest of its topics
    <name>.<token>.epoch              the names of the history; see `names`
    <name>.cuts.>                     in a stream beside, <name>_cuts: what has been dropped; see `cuts` and `holes`
    <name>.facts.<fact>               in another, <name>_facts; see `facts`
    <name>.messages, <name>.turns     outside the streams: the side channel, and requests for a pause
    <name>.hubs                       the question who else has the history open

The newest message has all that the next one needs. The server finds chosen ids by their subjects, and refuses an id
that it has for the same topics. A batch is in several messages if it has several chosen ids, or is larger than a
message may be. These messages follow each other without a gap. The last is published when the others are stored, and
makes them valid; readers pass over messages whose publisher died before it sent the last.

The token is made with the stream. So a publisher that remembers a deleted stream has no subject to publish to. If an
operator empties the stream, the first who sees it names a new history.

What has been dropped at the front is purged, other messages are deleted one by one (`drops`). What an event takes is
free when all events of its batch are dropped. The stream has no limits of its own: hubs alone decide what goes.

Durability: an append returns when the server has the message, with `?replicas=3` when two of three servers have it.
JetStream writes at once, but makes the disk sync only every two minutes. That matters if a single server loses its
power, or all replicas lose theirs together. The remedy is `sync_interval: always` in its configuration.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from ssepool.brokers.base import (
    Bounds,
    Broker,
    Fact,
    Kept,
    Stored,
    Wants,
    anything,
    assign,
    first_of_each,
    new_epoch,
)
from ssepool.brokers.nats.address import Address
from ssepool.brokers.nats.batch import State, batch
from ssepool.brokers.nats.connection import Refused
from ssepool.brokers.nats.facts import Facts
from ssepool.brokers.nats.history import History
from ssepool.brokers.nats.ids import Ids
from ssepool.brokers.nats.marks import ALL_SUBJECTS
from ssepool.brokers.nats.reader import Reader
from ssepool.brokers.nats.stream import JetStream, NoStream, Overtaken, Rejected
from ssepool.brokers.record import UNREADABLE_ERRORS, Record, pack
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError

ATTEMPTS_BEFORE_TURN = 3
"""Attempts in which another publisher is quicker before we ask the others to pause."""

MAX_PAUSE_SECONDS = 0.5
"""The longest pause that a publisher may ask for."""

ANSWER_SECONDS = 1.0
"""Seconds in which a hub that has the history open says so; one that does not may be dead."""

UNFINISHED_SECONDS = 0.01
"""Seconds that another publisher has to complete a batch before its messages count as abandoned."""


class NatsBroker(Broker):
    """Keeps events in a stream. It is optimistic: it appends as if it were alone, and tries again if it was not."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._address = Address.of(config.broker)
        self.url = self._address.shown
        self._js: JetStream | None = None
        self._connecting = asyncio.Lock()
        self._history = History(self._address, config.broker_timeout)
        self._reader = Reader(self._history)
        self._marks = self._history.marks
        self._state: State | None = None
        """The end of the stream, as the last append left it; None if the next append has to ask the server."""
        self._ids = Ids(self._marks, self._history.drops.holes, self._event)
        self._facts = Facts(self._address.name)
        self._answering: JetStream | None = None
        """The connection on which we say that we have the history open."""
        self._server = ""
        """Which server we were connected to last."""
        self._before = ""
        """The epoch that we knew before we were: a server that was started anew may have an older state of it."""
        self._me = new_epoch().encode()
        self._turns, self._hubs = f"{self._address.name}.turns", f"{self._address.name}.hubs"
        self._pause_until = 0.0

    # Opening and closing.

    async def open(self) -> None:
        try:
            js = await self._connection()
            if self.follows:
                await self._enter(js)
            await self.bounds()
            await self.trim()
        except Refused as error:
            raise ConfigError(str(error)) from None

    async def _enter(self, js: JetStream) -> None:
        """Begin a new timeline, unless another hub has the history open or has done so meanwhile."""
        before = (await self._history.look(js)).state
        heard = await js.ask(self._hubs, min(ANSWER_SECONDS, self.config.broker_timeout / 2))
        now = (await self._history.look(js)).state
        if now.newest and now.epoch == before.epoch and _may_be_cut(heard, now):
            await self._history.renew(js, now.epoch)

    async def close(self) -> None:
        js, self._js = self._js, None
        if js is not None:
            await js.close()

    async def _connection(self) -> JetStream:
        async with self._connecting:
            if self._js is None or self._js.lost is not None:
                self._js = None
                js = JetStream(self._address, self.config.broker_timeout)
                await js.open()
                await js.hear(self._turns, self._hear_of_a_turn)
                self._js, self._state = js, None
                self._marks.forget()
                if js.server != self._server:
                    self._server, self._before = js.server, self._history.names.timelines.epoch
            return self._js

    # Appending.

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        js = await self._connection()
        state, self._state = self._state, None  # if anything goes wrong, the next append asks
        refuse = self.config.on_duplicate == "refuse"
        new, is_clear = first_of_each(records, refuse=refuse)
        old = await self._old_kept(js, new)
        kept: Mapping[str, Kept] = old
        overtaken = 0
        deadline = time.monotonic() + self.config.broker_timeout
        while time.monotonic() < deadline:
            await asyncio.sleep(self._pause_until - time.monotonic())
            started = time.monotonic()
            state = state or await self._asked(js)
            if overtaken or not is_clear:  # or the server has one of the ids already
                await self._history.look(js)
                async with js.asking():
                    kept = {**old, **await self._ids.kept(js, new)}
            positions = assign(records, kept, state.newest, refuse=refuse)
            stored = [
                Stored(record.id or f"{state.epoch}-{position}", position)
                for record, position in zip(records, positions, strict=True)
            ]
            fresh = [record for record in new if record.claim not in kept] if kept else new
            if not fresh:
                self._state = state
                return stored
            messages, behind = batch(state, fresh, js.most_data)
            try:
                await self._publish(js, messages, state, unless_there=not overtaken)
            except NoStream:
                state = None
            except Overtaken:
                state, overtaken = None, overtaken + 1
                if overtaken % ATTEMPTS_BEFORE_TURN == 0:
                    await self._ask_for_a_turn(js, time.monotonic() - started)
            else:
                self._state = behind
                self._history.seen.note(behind.epoch, behind.newest)
                return stored
        raise BrokerError(f"{self.url}: others append all the time; nothing was published")

    async def _publish(
        self, js: JetStream, messages: Sequence[tuple[str, bytes]], state: State, *, unless_there: bool
    ) -> None:
        try:
            async with js.asking():
                await js.publish(self._marks.subject(""), messages, state.seq, unless_there=unless_there)
        except Rejected:
            raise
        except BrokerError as error:
            raise BrokerError(f"{error}; the events may be published or not") from None

    async def _ask_for_a_turn(self, js: JetStream, took: float) -> None:
        """Ask all others to pause for two attempts of ours, since messages that they have sent may spoil the first.

        The publisher that has appended last knows the newest message, while we have to ask for it. So a publisher that
        is nearer to the server and appends without a break would always be quicker than we are.
        """
        await js.hint(self._turns, b"%b %f" % (self._me, min(2 * took, MAX_PAUSE_SECONDS)))

    def _hear_of_a_turn(self, message: bytes) -> None:
        sender, _, seconds = message.partition(b" ")
        if sender != self._me:
            self._pause_until = time.monotonic() + min(float(seconds), MAX_PAUSE_SECONDS)

    async def _old_kept(self, js: JetStream, records: Sequence[Record]) -> Mapping[str, Kept]:
        """What the history has of these events that an earlier version has stored."""
        if not self._ids.has_old or all(record.id is None for record in records):
            return {}
        await self._history.look(js)
        return await self._ids.old_kept(js, records)

    async def _asked(self, js: JetStream) -> State:
        """The end of the stream as the server says. A new timeline begins if that is less than has been seen, or if the
        server may have lost what others have seen."""
        while True:
            seen = self._history.seen.now()
            async with js.asking():
                state = await self._newest(js)
            before, self._before = self._before, ""
            if not seen.has_lost(state.epoch, state.newest) and (state.epoch != before or not state.newest):
                return state
            await self._history.renew(js, state.epoch)

    async def _newest(self, js: JetStream) -> State:
        """The end of the stream. It waits a moment for a batch that another publisher has not completed."""
        left = None
        while True:
            mark = await self._marks.last(js, ALL_SUBJECTS) if self._marks.token else None
            if mark is None:
                return (await self._history.look(js)).state
            if mark.part.is_last or mark.seq == left:
                return mark.state
            left = mark.seq
            await asyncio.sleep(UNFINISHED_SECONDS)

    # Ids.

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        js = await self._connection()
        view = await self._history.look(js)
        chosen = await self._ids.find(js, view, id, wants) if id else None
        made = self._history.names.timelines.place(id, view.state.newest) if chosen is None else None
        if made is None or not made.complete:
            return chosen
        return made.position if await self._history.is_there(js, view, made.position) else None

    async def _event(self, position: int) -> Record | None:
        """The event at a position, or None if it cannot be read."""
        entries = await self.fetch([position])
        if not entries or not entries[0].chunk:
            return None
        [entry] = entries
        frame = entry.frame.partition(b"\n")[2]
        return Record(frame, entry.topics, entry.private, entry.id, entry.key, entry.removed)

    # Reading.

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        js = await self._connection()
        async with aclosing(self._reader.tail(js, after)) as pages:
            async for page in pages:
                yield page

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        return await self._reader.read(await self._connection(), after, max_entries)

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        return await self._reader.fetch(await self._connection(), positions)

    # Bounds.

    async def bounds(self) -> Bounds:
        js = await self._connection()
        bounds = await self._history.bounds(js)
        if self.follows and not self._history.has_lost:
            await self._answer(js)
        return bounds

    async def renew(self, epoch: str) -> Bounds:
        await self._history.renew(await self._connection(), epoch)
        return await self.bounds()

    async def _answer(self, js: JetStream) -> None:
        """Say from now on that we have the history open, if we do not yet. Who has just connected again may have seen
        more than there is now, so this waits until we have looked."""
        if self._answering is not js:
            self._answering = js
            await js.answer(self._hubs, lambda: pack(self._history.seen.at(self._history.epoch)))

    async def trim(self) -> None:
        js = await self._connection()
        view = await self._history.look(js)
        await self._history.drops.sweep(js, view)
        async with js.asking():
            await self._ids.look_for_old(js)
        await self._facts.trim(js)

    # Dropping.

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        js = await self._connection()
        await self._history.drops.drop(js, await self._history.followed(js), positions, cuts, floor)

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        js = await self._connection()
        await self._history.look(js)
        return await self._history.drops.cuts.page(js, self._history.names.root, after)

    # Facts.

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self._check_fact(name, data)
        js = await self._connection()
        if not await self._facts.keep(js, name, data, seconds, self.max_facts):
            raise self._full_of_facts()

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        return await self._facts.read(await self._connection(), after)

    # The side channel.

    async def send(self, message: bytes) -> None:
        await (await self._connection()).send(f"{self._address.name}.messages", message)

    async def messages(self) -> AsyncIterator[bytes]:
        js = await self._connection()
        async with aclosing(js.listen(f"{self._address.name}.messages")) as messages:
            async for message in messages:
                yield message


def _may_be_cut(heard: bytes | None, state: State) -> bool:
    """Whether the end of the history may be lost, as far as another hub that has it open tells; None: there is none."""
    try:
        epoch, newest = _unpack_seen(heard or b"")
    except UNREADABLE_ERRORS:
        return True
    return epoch == state.epoch and newest > state.newest


_unpack_seen = msgspec.msgpack.Decoder(tuple[str, float]).decode
