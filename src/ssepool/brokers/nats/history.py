"""History: the stream as the events that it has, under the names that it has had."""

from __future__ import annotations

import time

from ssepool.brokers.base import Bounds, new_epoch
from ssepool.brokers.nats.address import Address
from ssepool.brokers.nats.drops import Drops
from ssepool.brokers.nats.marks import ALL_SUBJECTS, Marks, View
from ssepool.brokers.nats.seen import Seen
from ssepool.brokers.nats.stream import JetStream, NoStream
from ssepool.errors import BrokerError


class History:
    """What a broker knows of its history. Every look asks the server."""

    def __init__(self, address: Address, timeout: float) -> None:
        """`timeout` is the longest time that a new timeline may take, in seconds."""
        self.marks = Marks(address.name)
        """What the stream's messages say."""
        self.drops = Drops(address.name, self.marks)
        """What has been dropped."""
        self.names = self.drops.names
        """Under which names it has gone on."""
        self.seen = Seen()
        """How far it has been seen."""
        self.epoch = ""
        """The epoch that `bounds` named last: readers follow this history."""
        self.named = 0
        """The place of the message that named it."""
        self.has_lost = False
        """Whether it had less than was seen of it when `bounds` looked last."""
        self._address = address
        self._timeout = timeout

    async def look(self, js: JetStream) -> View:
        """What the server has. If the stream is missing, it is created, and if it is empty, a new history begins."""
        while True:
            async with js.asking():
                try:
                    view = await self.marks.view(js)
                except NoStream:
                    await js.create(f"{self._address.name}.{new_epoch()}.{ALL_SUBJECTS}")
                    continue
                if view is None:
                    await self.names.begin(js, (await js.info()).last)
                    continue
                if not await self.names.look(js, view):
                    continue
            await self.drops.look(js, view.state.newest)
            return view

    async def followed(self, js: JetStream) -> View:
        """What the server has of the history that `bounds` named last. Raises `BrokerError` if there is another."""
        view = await self.look(js)
        if view.state.epoch != self.epoch:
            raise self.ended()
        return view

    def ended(self) -> BrokerError:
        """What readers raise if the history goes on under another name than `bounds` named last."""
        return BrokerError(f"{self._address.shown} has begun a new history")

    async def bounds(self, js: JetStream) -> Bounds:
        """What the server has now."""
        while True:
            seen = self.seen.now()
            view = await self.look(js)
            async with js.asking():
                oldest, _ = await self.drops.oldest(js, view)
            state, timelines = view.state, self.names.timelines
            if timelines.epoch == state.epoch:  # else somebody who appends here has given it another name meanwhile
                break
        self.epoch, self.named = state.epoch, self.names.place
        self.has_lost = seen.has_lost(state.epoch, state.newest)
        self.seen.note(state.epoch, state.newest)
        self.seen.note_names(timelines)
        size = self.drops.size(view, oldest)
        return Bounds(state.epoch, oldest, state.newest, size, timelines.before, self.drops.cuts.floor)

    async def renew(self, js: JetStream, epoch: str) -> None:
        """Begin a new timeline, unless another name than this one has been given already."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            view = await self.look(js)
            if view.state.epoch != epoch:
                return
            async with js.asking():
                if await self.names.renew(js, view):
                    return
        raise BrokerError(f"{self._address.shown}: others append all the time; no new timeline has begun")

    async def start(self, js: JetStream, view: View, after: int) -> int:
        """The place of the batch with the first entry behind a position."""
        async with js.asking():
            mark = await self.marks.search(js, view.first, view.last, lambda mark: mark.part.after <= after)
        return view.first.seq if mark is None else mark.start

    async def is_there(self, js: JetStream, view: View, position: int) -> bool:
        """Whether the event at a position is there."""
        batch = await self.drops.batch_of(js, view, position)
        if batch is None or self.drops.holes.has(batch, position):
            return False
        async with js.asking():
            mark = await self.marks.next(js, batch.last)
        return mark is not None and mark.batch == batch
