"""Events, and their wire format: WHATWG HTML, section 9.2, server-sent events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import msgspec
from msgspec.structs import force_setattr

from ssepool.core.block import Block, block_from, block_of
from ssepool.core.chunk import chunk_text, unchunk
from ssepool.core.data import DATA, DataEncoder
from ssepool.core.topics import check_topic, shown
from ssepool.errors import InvalidEvent, InvalidTopic

MAX_ID_BYTES = 128
"""Bytes of an event's id at most."""

MAX_TYPE_CHARACTERS = 256
"""Characters of an event's type at most."""

MAX_KEY_CHARACTERS = 256
"""Characters of an event's key at most."""

REMOVED_TYPE = "removed"
"""The type of an event that says that nothing is there under its key any more, unless its publisher chose one."""

MIN_RETRY_MILLISECONDS, MAX_RETRY_MILLISECONDS = 500, 300_000
"""What `retry` may be: a publisher sets it for other people's connections, which are neither to come back again and
again at once, nor to stay away for days."""

MAX_TOPICS = 100
"""Topics of an event at most: each is kept with it, and looked up when it is delivered."""

EARLIEST = "earliest"
"""The `Last-Event-ID` that asks for everything that is kept; no event can have it."""

BEGINNING = re.compile(r"earliest|latest|last=.*", re.DOTALL)
"""What asks for events in the place of an id; no event can have it."""

OWN_TYPES = "ssepool."
"""What the types of the hub's own events begin with."""

MADE_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,19}")
"""What the ids that brokers make look like."""

ENTRY_BYTES = 400
"""Memory that an entry takes beside its text: the objects, the headers of its frame and its id, and its places in the
tables of a `Window`. So an empty event costs as much as 400 characters."""

TOPIC_BYTES = 160
"""Memory that a topic of an entry takes beside its characters, its place in the index of a `Window` among it."""

KEY_BYTES = 240
"""Memory that a key takes beside its characters, its place in the table of a `Window` among it."""

_ID = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_BYTES}}}")
_BAD_IN_KEY = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_BAD_IN_TYPE = re.compile(r"[\0\r\n\ud800-\udfff]")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event as it is kept and delivered: its place in the broker's order, and its wire bytes."""

    position: int
    """Place in the broker's order; 0 for what is live only."""
    id: str | None
    """The `id:` that the frame carries, if it carries one."""
    topics: tuple[str, ...]
    """The topics to which the event was published."""
    chunk: bytes
    """The event's frame, coded as a chunk once for all clients."""
    private: bool = False
    """Whether only subscriptions with the right to private events get it."""
    key: str | None = None
    """What it replaces in its topics: the event of this key that came before; None for an event that is added."""
    removed: bool = False
    """Whether it says that nothing is there under its key any more."""
    at: float = 0.0
    """When the broker stored it, in seconds since 1970; 0 if that is not known, or is now."""
    size: int = 0
    """Bytes of memory that it takes, all counted. It is found once, for all that keep it; what goes over the wire is
    `len(chunk)`."""

    def __post_init__(self) -> None:
        force_setattr(self, "size", memory_of(self.chunk, self.topics, self.key))

    @property
    def frame(self) -> bytes:
        """The event's wire bytes without the coding, which is cut off each time."""
        return unchunk(self.chunk)


class TombstoneFields(TypedDict, total=False):
    """What a publisher may say of an event that removes, beside its topics, key and data; see `Event`."""

    type: str | None
    """The event's type, for `addEventListener`."""
    id: str | None
    """The publisher's own id."""
    retry: int | None
    """The reconnection time that clients take over, in milliseconds."""
    private: bool
    """Whether only subscriptions with the right to private events get it."""


class EventFields(TombstoneFields, total=False):
    """What a publisher may say of an event beside its topics and data; see `Event`."""

    key: str | None
    """What it replaces: the event of this key in the same topics that came before."""
    removed: bool
    """Whether it says that nothing is there under its key any more."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What is published: checked when it is made, immutable, hashable.

    `data` is a string, bytes that are UTF-8, or anything JSON can carry, as `jsonable_encoder` of FastAPI makes it:
    models of Pydantic, dataclasses, times, generators too; the event keeps it as text. `id` is 1 to 128 visible ASCII
    characters: others break the reconnection of real clients. `retry` is in milliseconds. A `private` event reaches
    only subscriptions with the right to private events.

    An event with a `key` takes the place of the one before it with the same key in the same topics: of these only the
    newest is kept. One that is `removed` is the last: nothing is there under the key any more. Its type is `removed`
    unless it has another.

    Raises `InvalidEvent` or `InvalidTopic`, with a message that names the field, its value and what is allowed.
    """

    data: str
    """What clients get, as text."""
    topics: tuple[str, ...] = ()
    """The topics to which it is published."""
    type: str | None = None
    """The type that `addEventListener` takes; None for `message`."""
    id: str | None = None
    """The publisher's own id; None if the hub is to make one."""
    retry: int | None = None
    """The reconnection time that clients take over, in milliseconds; None to leave it."""
    private: bool = False
    """Whether only subscriptions with the right to private events get it."""
    key: str | None = None
    """What it replaces in its topics: the event of this key that came before; None for an event that is added."""
    removed: bool = False
    """Whether it says that nothing is there under its key any more."""
    lines: str | None = None
    """All of its frame but the id, where others have made it: of `from_frame`, which checks it. None for all others."""

    if TYPE_CHECKING:  # the fields hold less than what the constructor takes

        def __init__(
            self,
            data: Any,
            topics: Sequence[str] = (),
            type: str | None = None,
            id: str | None = None,
            retry: int | None = None,
            private: bool = False,
            key: str | None = None,
            removed: bool = False,
            lines: str | None = None,
        ) -> None: ...

    @classmethod
    def of(
        cls,
        topic: str | Sequence[str],
        data: Any,
        *,
        encoder: DataEncoder = DATA,
        **fields: Unpack[EventFields],
    ) -> Self:
        """An event for one topic or several, as every `publish` takes it. `encoder` makes text of the data.

        An `Event`, or a `ServerSentEvent` of FastAPI or sse-starlette, stands for all that it says but the topics;
        `fields` win over that. Raises `InvalidEvent` or `InvalidTopic`.
        """
        topics = (topic,) if isinstance(topic, str) else tuple(topic)
        if data.__class__ is str:
            return cls(data, topics, **fields)
        if data.__class__ is dict:
            return cls(encoder.json(data), topics, **fields)
        if isinstance(data, Event):
            return cls._remade(data, topics, fields)
        if (block := block_from(data, encoder)) is not None:
            return cls._remade(cls._from(block), topics, fields)
        return cls(encoder.text(data), topics, **fields)

    @classmethod
    def tombstone(
        cls,
        topic: str | Sequence[str],
        key: str,
        data: Any = None,
        *,
        encoder: DataEncoder = DATA,
        **fields: Unpack[TombstoneFields],
    ) -> Self:
        """An event that says that nothing is there under the key any more. Without `data` it carries the key, so that
        clients know what goes. Raises `InvalidEvent` or `InvalidTopic`."""
        check_key(key)
        return cls.of(topic, key if data is None else data, encoder=encoder, key=key, removed=True, **fields)

    @classmethod
    def from_frame(cls, frame: str | bytes, topics: str | Sequence[str] = (), *, private: bool = False) -> Self:
        """An event of a frame that others have made: datastar-py, an encoder of AG-UI, an adapter of pydantic-ai.

        Clients get its bytes: comments, fields that nobody knows, each line of data as it is. Two things may differ:
        every line ends with LF, and the id stands first. Raises `InvalidEvent` for what is not exactly one frame with
        data and a blank line behind it, and for an id, type or `retry` that no event may have.
        """
        return cls._from(block_of(frame), (topics,) if isinstance(topics, str) else tuple(topics), private)

    @classmethod
    def _from(cls, block: Block, topics: tuple[str, ...] = (), private: bool = False) -> Self:
        return cls(block.data, topics, block.type, block.id, block.retry, private, lines=block.lines)

    @classmethod
    def _remade(cls, event: Event, topics: tuple[str, ...], fields: EventFields) -> Self:
        # Lines that others have made say the type and the retry that they say.
        lines = None if fields.keys() & {"type", "retry"} else event.lines
        said: EventFields = {
            "type": event.type,
            "id": event.id,
            "retry": event.retry,
            "private": event.private,
            "key": event.key,
            "removed": event.removed,
        }
        said.update(fields)
        return cls(event.data, topics, lines=lines, **said)

    def __post_init__(self) -> None:
        if self.data.__class__ is not str or not self.data.isascii():
            force_setattr(self, "data", DATA.text(self.data))
        if self.topics.__class__ is not tuple or len(self.topics) > MAX_TOPICS:
            force_setattr(self, "topics", _topics(self.topics))
        else:
            for topic in self.topics:
                check_topic(topic)
        if self.type is not None:
            force_setattr(self, "type", check_type(self.type))
        if self.id is not None:
            force_setattr(self, "id", check_id(self.id))
        if self.retry is not None:
            check_retry(self.retry)
        if self.private.__class__ is not bool:
            raise InvalidEvent(f"private {shown(self.private)} is not allowed: it takes true or false")
        if self.key is not None or self.removed is not False:
            self._check_state()

    def _check_state(self) -> None:
        """Check what makes it the state of something, and give what removes its type."""
        if self.removed.__class__ is not bool:
            raise InvalidEvent(f"removed {shown(self.removed)} is not allowed: it takes true or false")
        if self.key is None:
            raise InvalidEvent("removed needs a key: without one it does not say what is gone")
        force_setattr(self, "key", check_key(self.key))
        if not self.topics:
            raise InvalidEvent(
                f"key {shown(self.key)} needs a topic: it takes the place of an event of the same topics"
            )
        if self.removed and self.type is None:
            force_setattr(self, "type", REMOVED_TYPE)
            force_setattr(self, "lines", None)  # which have no type, or another hand would have said it

    def entry(self, epoch: str, position: int) -> Entry:
        """This event at its place in the order, under its own id or the one that brokers make."""
        id = f"{epoch}-{position}" if self.id is None else self.id
        return Entry(position, id, self.topics, chunk_text(self._frame(id)), self.private, self.key, self.removed)

    def encode(self, id: str | None = None) -> bytes:
        """The frame of this event, with `id` (trusted, not checked) in place of its own if one is given."""
        return self._frame(self.id if id is None else id).encode()

    def encode_without_id(self) -> bytes:
        """The frame of this event but for the line `id:`."""
        return self._frame(None).encode()

    def _frame(self, id: str | None) -> str:
        if self.lines is None:
            return _written(self.data, self.type, id, self.retry)
        return self.lines if id is None else f"id: {id}\n{self.lines}"


def is_id(text: str) -> bool:
    """Whether an event may have this id, a publisher's own or one that a broker made."""
    return _ID.fullmatch(text) is not None


def topic_set(topics: tuple[str, ...]) -> tuple[str, ...]:
    """The same for all tuples of the same topics, in whatever order."""
    return topics if len(topics) < 2 else tuple(sorted(set(topics)))


def encode(data: str, *, type: str | None = None, id: str | None = None, retry: int | None = None) -> bytes:
    """The frame of an event whose fields are trusted: nothing is checked. `retry` is in milliseconds.

    CR, LF and CRLF in `data` all split lines, as a client's parser would; it joins them with LF.
    """
    return _written(data, type, id, retry).encode()


def _written(data: str, type: str | None, id: str | None, retry: int | None) -> str:
    if "\n" in data or "\r" in data:
        data = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    if id is not None and type is None and retry is None:  # as nearly all are, and this is done for each
        return f"id: {id}\ndata: {data}\n\n"
    fields = "" if id is None else f"id: {id}\n"
    if type is not None:
        fields = f"{fields}event: {type}\n"
    if retry is not None:
        fields = f"{fields}retry: {retry}\n"
    return f"{fields}data: {data}\n\n"


def memory_of(data: bytes, topics: Sequence[str], key: str | None = None) -> int:
    """Bytes of memory that an event takes with this frame or chunk, in which its id stands, these topics and this key:
    what every bound counts."""
    text = "".join(topics)
    # An ASCII character takes one byte, others one, two or four, and as many again once they have been encoded.
    characters = len(text) if text.isascii() else 4 * len(text)
    size = ENTRY_BYTES + len(data) + TOPIC_BYTES * len(topics) + characters
    return size if key is None else size + KEY_BYTES + (len(key) if key.isascii() else 4 * len(key))


def comment(text: str) -> bytes:
    """A comment, which clients ignore: every line of `text` behind a colon of its own, one LF at the end.

    There is no blank line, since one client takes a blank line after a comment for an empty message.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\n: ")
    return f": {text}\n".encode(errors="replace")


def check_type(type: str) -> str:
    """Return `type` if an event may have it, or raise `InvalidEvent`."""
    # Nearly all types end here: what is printable holds neither line ends nor surrogates.
    if (
        type.__class__ is str
        and 0 < len(type) <= MAX_TYPE_CHARACTERS
        and type.isprintable()
        and not type.startswith(OWN_TYPES)
    ):
        return type
    if not isinstance(type, str):
        raise InvalidEvent(f"type {shown(type)} is not allowed: it takes a string, not {type.__class__.__name__}")
    if not 0 < len(type) <= MAX_TYPE_CHARACTERS:
        size = f"has {len(type)} characters" if type else "is empty"
        raise InvalidEvent(f"type {shown(type)} {size}; it takes 1 to {MAX_TYPE_CHARACTERS}")
    if bad := _BAD_IN_TYPE.search(type):
        raise InvalidEvent(
            f"type {shown(type)} is not allowed: U+{ord(bad[0]):04X} at position {bad.start()}; "
            "it takes no NUL, CR, LF or lone surrogates"
        )
    if type.startswith(OWN_TYPES):
        raise InvalidEvent(f"type {shown(type)} is not allowed: types under {OWN_TYPES!r} are the hub's own")
    return str.__str__(type)


def check_key(key: str) -> str:
    """Return `key` if an event may have it, or raise `InvalidEvent`."""
    if not isinstance(key, str):
        raise InvalidEvent(f"key {shown(key)} is not allowed: it takes a string, not {key.__class__.__name__}")
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        size = f"has {len(key)} characters" if key else "is empty"
        raise InvalidEvent(f"key {shown(key)} {size}; it takes 1 to {MAX_KEY_CHARACTERS}")
    if bad := _BAD_IN_KEY.search(key):
        raise InvalidEvent(
            f"key {shown(key)} is not allowed: U+{ord(bad[0]):04X} at position {bad.start()}; "
            "it takes no control characters or lone surrogates"
        )
    return str.__str__(key)


def check_id(id: str) -> str:
    """Return `id` if an event may have it, or raise `InvalidEvent`."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidEvent(
            f"id {shown(id)} is not allowed: it takes 1 to {MAX_ID_BYTES} visible ASCII characters, no spaces"
        )
    if id.startswith(OWN_TYPES) or MADE_ID.fullmatch(id):
        # A reader that resumed with it would be taken for one that has something else, or everything.
        raise InvalidEvent(f"id {shown(id)} is not allowed: ids under {OWN_TYPES!r} and of this form are the hub's own")
    if BEGINNING.fullmatch(id):
        raise InvalidEvent(f"id {shown(id)} is not allowed: a client that resumes with it asks for what is kept")
    return str.__str__(id)


def check_retry(retry: int) -> None:
    """Raise `InvalidEvent` unless `retry` is a whole number of milliseconds that a publisher may set."""
    if retry.__class__ is not int or not MIN_RETRY_MILLISECONDS <= retry <= MAX_RETRY_MILLISECONDS:
        raise InvalidEvent(
            f"retry {shown(retry)} is not allowed: it takes a whole number of milliseconds, "
            f"{MIN_RETRY_MILLISECONDS} to {MAX_RETRY_MILLISECONDS}"
        )


def _topics(topics: Any) -> tuple[str, ...]:
    if not isinstance(topics, (tuple, list)):
        raise InvalidTopic(f"topics {shown(topics)} is not allowed: it takes a tuple or a list of names")
    if len(topics) > MAX_TOPICS:
        raise InvalidTopic(f"an event of {len(topics)} topics is not allowed; it takes {MAX_TOPICS} at most")
    return tuple(check_topic(topic) for topic in topics)
