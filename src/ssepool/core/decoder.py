"""The parser of event streams: WHATWG HTML, section 9.2.6, interpreting an event stream."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ssepool.config import MiB
from ssepool.errors import EventTooLarge

_BOM = b"\xef\xbb\xbf"
_CR = 0x0D  # the number, because looking for it takes a fifth of the time that looking for bytes takes
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_MAX_FIELD_BYTES = max(map(len, _FIELDS))

# int() refuses more than 4300 digits, and nobody waits for as long as 18 of them say.
_MAX_RETRY_DIGITS = 18


class Message(msgspec.Struct, frozen=True, gc=False):
    """An event as a client sees it: `id` is the last event id of the stream when it was dispatched, "" if none."""

    type: str
    """The event's type: `message` where the stream named none."""
    data: str
    """The lines of data, joined with LF."""
    id: str
    """The last id that the stream named, of this event or an earlier one."""


class Decoder:
    """Turns the bytes of one response into messages, however they are cut into chunks.

    `max_event_size` bounds, in bytes, the lines of one event that have a known field name, line ends not counted.
    What comes beyond the name of an unknown field is neither counted nor kept. The same holds for comments, unless
    `on_comment` is given: it is called with the text behind the colon of each, cut off at `max_event_size`.

    `last_event_id` is what the stream begins with: that of the connection before, when a client reconnects.
    An unfinished event at the end of the stream is not to be dispatched, so there is nothing to call there.
    """

    def __init__(
        self,
        max_event_size: int = 16 * MiB,
        on_comment: Callable[[str], None] | None = None,
        *,
        last_event_id: str = "",
    ) -> None:
        self.retry: int | None = None
        """The reconnection time that the stream named last, in milliseconds; None if it named none."""
        self._limit = max_event_size
        self._on_comment = on_comment
        self._last_event_id = last_event_id
        self._too_large = ""

        self._start: bytes | None = b""  # bytes so far that may become a BOM; None once that is decided
        self._after_cr = False
        self._line = bytearray()  # an unfinished line, or so much of it that matters
        self._skipping = False  # the rest of that line does not matter

        # The buffers of the standard, and the bytes of the lines that filled them.
        self._data: list[bytes] = []
        self._type = ""
        self._id = last_event_id
        self._size = 0

    @property
    def last_event_id(self) -> str:
        """The last event id string: changes when a block with an `id` ends, whether it makes a message or not."""
        return self._last_event_id

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that this chunk completes.

        Raises `EventTooLarge` for an event beyond `max_event_size`: at once if the chunk completed no message before
        it, else in the next call, so that none is lost; and in each call thereafter.
        """
        self._check()
        lines = self._normalize(chunk).split(b"\n")
        rest = lines.pop()
        messages: list[Message] = []
        if lines:
            if self._line:
                lines[0] = bytes(self._line) if self._skipping else bytes(self._line + lines[0])
                self._line.clear()
                self._skipping = False
            self._parse(lines, messages)
        if rest and not self._skipping:
            self._keep(rest)
        if not messages:
            self._check()
        return messages

    def _check(self) -> None:
        if self._too_large:
            raise EventTooLarge(self._too_large)

    def _normalize(self, chunk: bytes) -> bytes:
        """The chunk without the BOM of the stream, and with LF for every line end."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return b""
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        if not chunk:
            return chunk
        # A CR ends its line at once, so an LF that begins the next chunk belongs to a line end already seen.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk[-1:] == b"\r"
        if _CR in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _parse(self, lines: list[bytes], messages: list[Message]) -> None:
        """Do what whole lines say, and append the messages of the blocks that they end."""
        for line in lines:
            if not line:
                if self._size > self._limit:
                    break
                self._last_event_id = self._id
                if self._data:
                    # Replacing invalid bytes cannot reach over an LF, so lines need not be decoded one by one.
                    data = b"\n".join(self._data).decode("utf-8", "replace")
                    messages.append(Message(self._type or "message", data, self._id))
                    self._data = []
                self._type = ""
                self._size = 0
                continue
            field, _, value = line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                self._data.append(value)
            elif field == b"id":
                if b"\0" not in value:
                    self._id = value.decode("utf-8", "replace")
            elif field == b"event":
                self._type = value.decode("utf-8", "replace")
            elif field == b"retry":
                if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                    self.retry = int(value)
            else:
                if not field and self._on_comment is not None:
                    self._on_comment(line[1 : 1 + self._limit].decode("utf-8", "replace"))
                continue
            self._size += len(line)
        if self._size > self._limit:
            self._refuse(self._size)

    def _keep(self, rest: bytes) -> None:
        """Add to the unfinished line, as far as it matters."""
        self._line += rest
        start = bytes(self._line[:_MAX_FIELD_BYTES])
        if start.startswith(_FIELDS):
            if self._size + len(self._line) > self._limit:
                self._refuse(self._size + len(self._line))
        elif any(field.startswith(start) for field in _FIELDS):
            return  # it may become a known field yet
        elif start.startswith(b":") and self._on_comment is not None:
            self._skipping = len(self._line) > 1 + self._limit
            del self._line[1 + self._limit :]
        else:
            # The start alone says later that the line was none of ours.
            self._skipping = True
            self._line[:] = start

    def _refuse(self, size: int) -> None:
        self._too_large = f"an event of the stream has {size} bytes or more; max_event_size is {self._limit}"
        self._data.clear()
        self._line.clear()
