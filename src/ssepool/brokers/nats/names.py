"""Names: under which name the history goes on, and which ones it had before.

A message of the stream without events says it: what is stored behind it has the new name. Every append expects a
certain message to be the newest, so none lands under the name before, and of two hubs that give a name at the same time
one does. The newest of these messages always stays: where all before it goes, it is written once more at the end.

What has been dropped is kept in a stream beside. The *root* tells of which history: it is made with the first name, and
stays while the others change.
"""

from __future__ import annotations

from ssepool.brokers.base import new_epoch
from ssepool.brokers.nats.batch import EPOCH_SUBJECT, STREAM_VERSION, Part, State, decode, naming
from ssepool.brokers.nats.cuts import Cuts
from ssepool.brokers.nats.marks import Marks, View
from ssepool.brokers.nats.stream import JetStream, Message, NoStream, Overtaken
from ssepool.brokers.record import UNREADABLE_ERRORS
from ssepool.core.timelines import Timelines


class Names:
    """The names of one history. All is called in an `asking` block."""

    def __init__(self, marks: Marks, cuts: Cuts) -> None:
        self.timelines = Timelines("")
        """The names, as they were seen last."""
        self.root = ""
        """What the cuts of this history are known by."""
        self.place = 0
        """The place of the message that says so."""
        self._older: list[int] = []
        """The places of such messages before it, that somebody who died has left."""
        self._marks = marks
        self._cuts = cuts

    async def begin(self, js: JetStream, last: int) -> None:
        """Name a new history, in a stream that has nothing of ours and ends at this place."""
        root = new_epoch()
        await self._cuts.begin(js, root)
        await self._put(js, State(last, "", 0, 0), Timelines(new_epoch()), root)

    async def look(self, js: JetStream, view: View) -> bool:
        """See which names the history has; false if they are others than before, so that nothing else counts any more
        of what was seen of it."""
        if view.state.epoch == self.timelines.epoch:
            return True
        self._marks.forget()
        named = await self._newest(js)
        if named is None:
            await self._take_over(js, view)
        else:
            self.place, part = named
            if part.version > STREAM_VERSION:
                raise js.refused(
                    f"the history has the version {part.version} of a newer ssepool, and this one knows "
                    f"{STREAM_VERSION}: update it, or choose another ?name="
                )
            self.timelines, self.root = part.timelines, part.content
            if self.timelines.epoch != view.state.epoch:  # a message from before a loss has got behind it
                await self.renew(js, view)
        return False

    async def renew(self, js: JetStream, view: View) -> bool:
        """Go on under another name behind what is there; false if another message is the newest already."""
        return await self._replace(js, view, self.timelines.followed(new_epoch(), view.state.newest))

    async def repeat(self, js: JetStream, view: View) -> bool:
        """Say the same once more at the end; false if another message is the newest already."""
        return await self._replace(js, view, self.timelines)

    async def _replace(self, js: JetStream, view: View, timelines: Timelines) -> bool:
        before = [*self._older, self.place]
        if not await self._put(js, view.state, timelines, self.root):
            return False
        self._older = []
        for place in before:
            await js.delete(place)
        return True

    async def _put(self, js: JetStream, state: State, timelines: Timelines, root: str) -> bool:
        message = naming(state, timelines, root)
        try:
            await js.publish(self._marks.subject(""), [message], state.seq, unless_there=False)
        except (Overtaken, NoStream):
            return False
        if timelines.epoch != self.timelines.epoch:
            self._marks.forget()
        self.timelines, self.root, self.place = timelines, root, state.seq + 1
        return True

    async def _newest(self, js: JetStream) -> tuple[int, Part] | None:
        """The newest message that names the history, and its place."""
        newest, older = None, list[int]()
        subject, seq = self._marks.subject(EPOCH_SUBJECT), 0
        while (message := await js.get(subject, seq + 1)) is not None:
            seq = message.seq
            part = _part(message)
            if part is not None:
                older += [] if newest is None else [newest[0]]
                newest = seq, part
        self._older = older
        return newest

    async def _take_over(self, js: JetStream, view: View) -> None:
        """Name a history that an earlier version has begun, or whose name is lost.

        The earlier version dropped from the front alone. Where our own cuts are lost, nothing is known of any place.
        """
        root = new_epoch()
        is_ours = (await self._cuts.beside.look(js)).last > 0
        await self._cuts.begin(js, root)
        await self._cuts.raise_floor(js, root, view.state.newest if is_ours else view.first.part.after)
        await self._put(js, view.state, Timelines(view.state.epoch), root)


def _part(message: Message) -> Part | None:
    try:
        part = decode(message.data)
        is_newer = part.version > STREAM_VERSION  # what else it says may be said in another way
        return part if not part.events and (is_newer or part.timelines) else None
    except UNREADABLE_ERRORS:
        return None
