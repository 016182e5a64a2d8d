"""Block: one event as another package has made it, a frame or an object, taken apart.

A frame is what WHATWG HTML, section 9.2.6, interprets: lines, and a blank one behind them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ssepool.core.data import DataEncoder
from ssepool.core.topics import shown
from ssepool.errors import InvalidEvent

OBJECT_NAMES = frozenset({"ServerSentEvent", "ServerSentEventMessage"})
"""The names of the classes of FastAPI, sse-starlette and Litestar whose objects are events."""

MAX_RETRY_DIGITS = 18
"""Digits of a `retry:` that are read: nobody waits for as long as more of them say."""


class Block(NamedTuple):
    """The fields of one event, and its lines where the fields do not say all of it."""

    data: str
    """The lines of data, joined with LF."""
    type: str | None
    """The event's type; None for `message`."""
    id: str | None
    """The event's own id."""
    retry: int | None
    """The reconnection time in milliseconds."""
    lines: str | None = None
    """All lines but the id's, with LF behind each, and the blank line; None if the fields make the same."""


def block_of(frame: str | bytes) -> Block:
    """Take a frame apart. Raises `InvalidEvent` for what is not exactly one with data."""
    if isinstance(frame, str):
        text = str.__str__(frame)
    else:
        try:
            text = str(frame, "utf-8")
        except (UnicodeDecodeError, TypeError) as error:
            raise InvalidEvent(f"frame {shown(frame)} is not text in UTF-8: {error}") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    body = text.strip("\n")
    if not body:
        raise InvalidEvent(f"frame {shown(frame)} is empty; it takes the lines of one event and a blank line")
    if not text.endswith("\n\n"):
        raise InvalidEvent(f"frame {shown(frame)} is not whole: it ends without a blank line")
    if "\n\n" in body:
        raise InvalidEvent(f"frame {shown(frame)} is more than one: there is a blank line in it")
    data: list[str] = []
    fields: dict[str, str] = {}
    kept: list[str] = []
    for line in body.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name != "retry" or (value.isascii() and value.isdecimal()):  # a client passes over any other
            fields[name] = value
        if name != "id":
            kept.append(line)
    if not data:
        raise InvalidEvent(f"frame {shown(frame)} has no data, so that clients would get nothing of it")
    retry = fields.get("retry")
    return Block(
        "\n".join(data),
        fields.get("event") or None,
        fields.get("id") or None,
        None if retry is None else int(retry[: MAX_RETRY_DIGITS + 1]),
        "\n".join(kept) + "\n\n",
    )


def block_from(event: Any, encoder: DataEncoder) -> Block | None:
    """What an object of another package says that is an event there; None for all other objects.

    FastAPI's `data` is JSON in any case, strings too, and its `raw_data` text. Raises `InvalidEvent`.
    """
    kind = event.__class__
    if kind.__module__ == "builtins":  # nearly all
        return None
    if not any(base.__name__ in OBJECT_NAMES for base in kind.__mro__) or not hasattr(event, "retry"):
        return None
    raw = getattr(event, "raw_data", None)
    data, comment = event.data if raw is None else raw, getattr(event, "comment", None)
    if data is None:
        text = None
    elif hasattr(event, "raw_data") and raw is None:
        text = encoder.json(data)
    else:
        text = data if isinstance(data, str) else encoder.text(data)
    type, id, retry = event.event or None, event.id, event.retry
    id = None if id is None or id == "" else str(id)
    if text is not None and comment is None:
        return Block(text, type, id, retry)
    lines = [f": {line}" for line in _lines(comment)] if comment is not None else []
    if type is not None:
        lines.append(f"event: {type}")
    if retry is not None:
        lines.append(f"retry: {retry}")
    if text is not None:
        lines += [f"data: {line}" for line in _lines(text)]
    return Block(text or "", type, id, retry, "".join([f"{line}\n" for line in lines]) + "\n")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
