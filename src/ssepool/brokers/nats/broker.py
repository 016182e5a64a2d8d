"""Events in NATS JetStream: one stream, and for each append one message.

JetStream stores messages, gives each a number (the *place* of the message), and can store a message on the condition
that a certain place is the newest. The contract asks for more: positions of events without holes, and batches that are
there whole or not at all. So a message has a batch of events, and says at which position they begin. A publisher sends
it for the place behind the newest message that it knows. If another message has that place already, the server stores
nothing, and the publisher makes its message again. If it was too late several times, it asks the others to pause.

    <name>.<token>.log                the stream's messages: each is a `Part` of a batch, or all of it
    <name>.<token>.id.<id>.<topics>   the same, for an event with a chosen id; a digest of its topics
    <name>.facts.<fact>               in a stream beside, <name>_facts; see `facts`
    <name>.messages, <name>.turns     outside the stream: the side channel, and requests for a pause

The newest message has all that the next one needs, so nothing is kept beside the stream. The server finds chosen ids by
their subjects, and refuses an id that it has for the same topics. A batch is in several messages if it has several
chosen ids, or is larger than a message may be. These messages follow each other without a gap. The last is published
when the others are stored, and makes them valid; readers pass over messages whose publisher died before it sent the
last.

The token is made with the stream, and is the epoch. So a publisher that remembers a deleted stream has no subject to
publish to. If an operator empties the stream, the next epoch is derived from the token.

Weaker than with other brokers:

- The history is cut exactly by count, but by bytes and age only between two appends. The server keeps a little more
  (1,000 events, 4 MiB), so that tails still find what the history has no room for, and it always keeps the newest
  append, which has the newest position. That is why the stream has no limits of its own: `max_age` would drop that
  append. Only the hubs trim it.
- Ages are measured with the clocks of the server and of the hub, which should agree.
- JetStream writes at once, but makes the disk sync only every two minutes. That matters if a single server loses its
  power. The remedy is `sync_interval: always` in its configuration, or `?replicas=3` in the URL.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing

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
from ssepool.brokers.nats.batch import Joiner, Mark, State, batch
from ssepool.brokers.nats.connection import Refused
from ssepool.brokers.nats.facts import Facts
from ssepool.brokers.nats.ids import Ids
from ssepool.brokers.nats.marks import ALL_SUBJECTS, Marks, View
from ssepool.brokers.nats.stream import JetStream, Message, NoStream, Overtaken, Rejected
from ssepool.brokers.record import Record
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of memory (`Entry.size`) of a page, approximately."""

SPARE_EVENTS = 1000
"""Events that the server keeps beyond the history, for tails that are a moment behind."""

SPARE_BYTES = 4 * MiB
"""Bytes of events that the server keeps beyond the history, for tails that are a moment behind."""

ATTEMPTS_BEFORE_TURN = 3
"""Attempts in which another publisher is quicker before we ask the others to pause."""

MAX_PAUSE_SECONDS = 0.5
"""The longest pause that a publisher may ask for."""

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
        self._marks = Marks(self._address.name)
        self._state: State | None = None
        """The end of the stream, as the last append left it; None if the next append has to ask the server."""
        self._epoch = ""
        """The epoch that `bounds` named last: readers follow this history."""
        self._ids = Ids(self._marks, self._event)
        self._facts = Facts()
        self._me = new_epoch().encode()
        self._turns = f"{self._address.name}.turns"
        self._pause_until = 0.0

    # Opening and closing.

    async def open(self) -> None:
        try:
            await self.bounds()
            await self.trim()
        except Refused as error:
            raise ConfigError(str(error)) from None

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
                self._js = js
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
            async with js.asking():
                state = state or await self._newest(js)
                if overtaken or not is_clear:  # or the server has one of the ids already
                    kept = {**old, **await self._ids.kept(js, await self._view(js), new)}
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
        async with js.asking():
            view = await self._view(js)
        return await self._ids.old_kept(js, view, records)

    async def _newest(self, js: JetStream) -> State:
        """The end of the stream. It waits a moment for a batch that another publisher has not completed."""
        left = None
        while True:
            mark = await self._marks.last(js, ALL_SUBJECTS) if self._marks.token else None
            if mark is None:
                return (await self._view(js)).state
            if mark.part.is_last or mark.seq == left:
                return mark.state
            left = mark.seq
            await asyncio.sleep(UNFINISHED_SECONDS)

    # Ids.

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        js = await self._connection()
        async with js.asking():
            view = await self._view(js)
        chosen = await self._ids.find(js, view, id, wants) if id else None
        number = id.removeprefix(view.state.epoch + "-")
        if chosen is None and number != id and number.isascii() and number.isdigit() and len(number) < 20:
            return int(number) if view.oldest < int(number) <= view.state.newest else None
        return chosen

    async def _event(self, position: int) -> Record | None:
        """The event at a position, or None if it cannot be read."""
        entries = await self.read(position - 1, max_entries=1)
        if not entries or entries[0].position != position or not entries[0].chunk:
            return None
        [entry] = entries
        return Record(entry.frame.partition(b"\n")[2], entry.topics, entry.private, entry.id, entry.key, entry.removed)

    # Reading.

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        js = await self._connection()
        async with js.asking():
            view = await self._view(js)
            start = await self._start(js, view, after)
        joiner = Joiner()
        async with js.messages(start) as pages:
            if after >= view.state.newest:
                yield ()
            async for messages in pages:
                for page in _pages(self._entries(joiner, messages, after, self._epoch)):
                    after = page[-1].position
                    yield page

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        js = await self._connection()
        async with js.asking():
            view = await self._view(js)
            after = max(after, view.oldest)
            if after >= view.state.newest:
                return []
            start = await self._start(js, view, after)
        joiner, entries, epoch = Joiner(), list[Entry](), self._epoch
        async with js.messages(start) as pages:
            async for messages in pages:
                entries += self._entries(joiner, messages, after, epoch)
                if len(entries) >= max_entries or _size(entries) >= PAGE_BYTES or not messages[-1].pending:
                    break
        return entries[:max_entries]

    def _entries(self, joiner: Joiner, messages: Sequence[Message], after: int, epoch: str) -> list[Entry]:
        """The entries behind a position in these messages. Raises `BrokerError` where another history begins."""
        entries: list[Entry] = []
        for message in messages:
            joined = joiner.join(message.data)
            if joined is None:
                continue
            if joined[0] != epoch:
                raise BrokerError(f"{self.url} has begun a new history")
            entries += [entry for entry in joined[1] if entry.position > after]
        return entries

    async def _start(self, js: JetStream, view: View, after: int) -> int:
        """The place of the batch with the first entry behind a position."""
        if view.ends is None:
            return view.state.seq + 1
        first, last = view.ends
        mark = await self._marks.search(js, first, last, lambda mark: mark.part.after <= after)
        return first.seq if mark is None else mark.start

    # Bounds.

    async def bounds(self) -> Bounds:
        js = await self._connection()
        async with js.asking():
            view = await self._view(js)
            if view.ends is not None and self._is_large(*view.ends):
                await self._trim(js, *view.ends)
        self._epoch = view.state.epoch
        return Bounds(view.state.epoch, view.oldest, view.state.newest, view.size)

    async def trim(self) -> None:
        js = await self._connection()
        async with js.asking():
            view = await self._view(js)
            if view.ends is not None:
                await self._trim(js, *view.ends)
            await self._ids.look_for_old(js)
        await self._facts.trim(js)

    def _is_large(self, first: Mark, last: Mark) -> bool:
        """Whether the stream has so much beyond the history that it has to be trimmed now."""
        events, size = last.part.newest - first.part.after, last.part.all_bytes - first.part.total
        return (
            events > self.config.history_events + 2 * SPARE_EVENTS or size > self.config.history_bytes + 2 * SPARE_BYTES
        )

    async def _trim(self, js: JetStream, first: Mark, last: Mark) -> None:
        oldest = await self._oldest(js, first, last, SPARE_EVENTS, SPARE_BYTES)
        mark = await self._marks.search(js, first, last, lambda mark: mark.part.after <= oldest)
        if mark is not None and mark.start > first.seq:
            await js.purge(mark.start)

    async def _view(self, js: JetStream) -> View:
        """What the server has. If the stream is missing, it is created."""
        try:
            info = await js.info()
        except NoStream:
            await js.create(f"{self._address.name}.{new_epoch()}.{ALL_SUBJECTS}")
            info = await js.info()
        self._marks.follow(info)
        first = await self._marks.at(js, info.first) if info.messages else None
        last = await self._marks.before(js, info.last, info.first) if info.messages else None
        if first is None or last is None:
            return View(State(info.last, _epoch(info.token, info.last), 0, 0), 0, 0, None)
        oldest = await self._oldest(js, first, last)
        size = last.part.all_bytes - await self._bytes(js, first, last, oldest)
        return View(last.state._replace(seq=info.last), oldest, size, (first, last))

    async def _oldest(self, js: JetStream, first: Mark, last: Mark, events: int = 0, size: int = 0) -> int:
        """The position before the oldest entry of a history with `events` and `size` bytes more than configured."""
        oldest = max(first.part.after, last.part.newest - self.config.history_events - events)
        least = last.part.all_bytes - self.config.history_bytes - size
        latest = time.time() - self.config.history_age
        dropped: Sequence[Callable[[Mark], bool]] = (
            lambda mark: mark.part.total < least,
            lambda mark: mark.time <= latest,
        )
        for is_dropped in dropped:
            if mark := await self._marks.search(js, first, last, is_dropped):
                oldest = max(oldest, mark.part.newest)
        return oldest

    async def _bytes(self, js: JetStream, first: Mark, last: Mark, position: int) -> int:
        """Bytes of all entries up to a position. The entries of one batch count as equally large."""
        mark = await self._marks.search(js, first, last, lambda mark: mark.part.after <= position)
        if mark is None:
            return first.part.total
        part = mark.part
        return part.total + part.size * min(position - part.after, part.events) // part.events

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


def _epoch(token: str, seq: int) -> str:
    """The name of the history that begins behind this place. Every hub derives the same name."""
    return hashlib.sha256(f"{token} {seq}".encode()).hexdigest()[:8] if seq else token


def _size(entries: Sequence[Entry]) -> int:
    return sum([entry.size for entry in entries])


def _pages(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Entries in pages of at most `PAGE_ENTRIES` entries and about `PAGE_BYTES`."""
    start = size = 0
    for place, entry in enumerate(entries):
        if place > start and (place - start == PAGE_ENTRIES or size + entry.size > PAGE_BYTES):
            yield entries[start:place]
            start, size = place, 0
        size += entry.size
    if entries:
        yield entries[start:]
