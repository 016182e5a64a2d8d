"""What a stream brings, and what a test expects of it, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ssepool.core.decoder import Message

OWN = "ssepool."
"""What the types of the hub's own events begin with."""

MAX_SHOWN = 10
"""Events that a message shows of those that came before."""


class _Any:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Any = _Any()
"""Equal to everything: for a part of the data that a test does not care about."""


class Received(Message, frozen=True, gc=False):
    """An event that came: its `type`, its `data` as text, and the stream's last `id` then."""

    @property
    def json(self) -> Any:
        """The data, decoded. Raises `msgspec.DecodeError` for data that is no JSON."""
        return msgspec.json.decode(self.data)

    @property
    def is_own(self) -> bool:
        """Whether it is the hub's own."""
        return self.type.startswith(OWN)

    def has(self, data: Any) -> bool:
        """Whether this is its data: the text itself, or what it decodes to as JSON."""
        return is_data(self.data, data)

    def __str__(self) -> str:
        return f"{self.type} {self.data}" + (f" (id {self.id})" if self.id else "")


class Comment(msgspec.Struct, frozen=True):
    """A comment that came: a heartbeat, as a rule."""

    text: str
    """What stands behind the colon."""

    def __str__(self) -> str:
        return f": {self.text}"


Item = Received | Comment
"""What a stream brings."""


def is_data(text: str, expected: Any) -> bool:
    """Whether a text is what is expected, or decodes to it as JSON."""
    if text == expected:
        return True
    try:
        return bool(msgspec.json.decode(text) == expected)
    except msgspec.DecodeError:
        return False


def wish(type: str | None, data: Any, id: str | None) -> str:
    """What is expected, in words."""
    words = f"the event {type!r}" if type is not None else "an event"
    if data is not ANY:
        words += f" with the data {data!r}"
    return words + (f" and the id {id!r}" if id is not None else "")


def before(items: Sequence[object]) -> str:
    """What came before, in words: the last of it, one a line."""
    if not items:
        return "nothing had come before"
    left_out = [f"({len(items) - MAX_SHOWN} more)"] if len(items) > MAX_SHOWN else []
    return "before came:" + _lines([*left_out, *items[-MAX_SHOWN:]])


def _lines(items: Iterable[object]) -> str:
    return "".join(f"\n    {item}" for item in items)
