"""Data of an event as the text that clients get: a string as it is, all else as JSON, as FastAPI would make it.

Nothing of Pydantic or FastAPI is imported: what is theirs is known by what it can do.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence, Set, ValuesView
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from ssepool.config import MiB
from ssepool.core.topics import shown
from ssepool.errors import EventTooLarge, InvalidEvent

MAX_DATA_BYTES = 16 * MiB
"""Bytes of JSON that are made of one object at most where no `max_event_size` is known: a generator may be endless."""

JSONEncoder = Callable[[Any], Any]
"""An application's own function: is given an object that is not known, and returns what stands for it and is."""

_encode = msgspec.json.Encoder(decimal_format="number").encode
_SCALARS = frozenset({str, int, float, bool, type(None)})
_PLAIN = _SCALARS | {dict, list}
# What may stand in JSON of msgspec and is written otherwise by FastAPI: times in UTC, durations, decimals that are no
# numbers. To look for these takes next to nothing, and strings that look so are told apart afterwards.
_SIGNS = ('Z"', '"P', '"-P', "NaN", "Infinity")
# Where classes come from whose text is what JSON has of them.
_TEXTS = frozenset({"uuid", "ipaddress", "pathlib", "pydantic", "pydantic_core", "pydantic_extra_types"})


class DataEncoder:
    """Makes text of the data of events, for one hub, publisher or client."""

    def __init__(self, json_encoder: JSONEncoder | None = None, max_bytes: int = MAX_DATA_BYTES) -> None:
        """`json_encoder` is asked about objects that are not known. More than `max_bytes` bytes are not made."""
        self.json_encoder = json_encoder
        """The application's own function, if there is one."""
        self._max_bytes = max_bytes

    def text(self, data: Any) -> str:
        """Data as text. Raises `InvalidEvent`, also for what is cyclic, and `EventTooLarge` for what is endless."""
        if isinstance(data, str):
            return _checked(data)
        if isinstance(data, (bytes, bytearray, memoryview)):
            try:
                return str(data, "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidEvent(f"data {shown(bytes(data))} is not UTF-8: {error.reason} at {error.start}") from None
        return self.json(data)

    def json(self, data: Any) -> str:
        """Data as JSON, strings too. Raises as `text` does."""
        try:
            try:
                text = _encode(data).decode()
                # To look for one character takes next to nothing, and most JSON has none of these.
                if not (
                    ("Z" in text or "P" in text or "N" in text or "I" in text)
                    and any([sign in text for sign in _SIGNS])
                    and not _is_plain(data)
                ):
                    return text
            except TypeError:  # there is something that msgspec does not know
                pass
            return _encode(_Walk(self.json_encoder, self._max_bytes).plain(data)).decode()
        except RecursionError as error:
            raise InvalidEvent(f"data {shown(data)} is not allowed: it holds itself, or is nested too deep") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidEvent(
                f"data {shown(data)} is not allowed: {error}; it takes a string, UTF-8 bytes or what JSON can carry"
            ) from error


class _Walk:
    """Makes of any data what msgspec writes as FastAPI would, as long as its JSON may be of so many bytes."""

    def __init__(self, hook: JSONEncoder | None, max_bytes: int) -> None:
        self._hook = hook
        self._max_bytes = self._left = max_bytes

    def plain(self, data: Any) -> Any:
        """The data, of strings, numbers, lists and dictionaries with keys that JSON can have."""
        kind = data.__class__
        self._count(1)  # at least; so it never counts too much
        if isinstance(data, Enum):
            return self.plain(data.value)
        if isinstance(data, str):
            self._count(len(data))
            return str.__str__(data)
        if kind in _SCALARS:
            if kind is int:
                self._count(data.bit_length() // 4)
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            self._count(len(data))
            return data
        if hasattr(kind, "__pydantic_serializer__") and hasattr(kind, "model_dump"):
            return self.plain(data.model_dump(mode="json", by_alias=True))
        if dataclasses.is_dataclass(kind):
            return {field.name: self.plain(getattr(data, field.name)) for field in dataclasses.fields(data)}
        if isinstance(data, Mapping):
            return {self._key(key): self.plain(value) for key, value in data.items()}
        if isinstance(data, (Sequence, Set, ValuesView, deque, Generator)):
            return [self.plain(item) for item in data]
        return self._other(data, kind)

    def _other(self, data: Any, kind: type[Any]) -> Any:
        if isinstance(data, Decimal):
            return data if data.is_finite() else None
        if isinstance(data, (int, float)):
            return int(data) if isinstance(data, int) else float(data)
        if hasattr(kind, "isoformat"):  # dates and times
            return data.isoformat()
        if hasattr(kind, "total_seconds"):
            return data.total_seconds()
        if isinstance(data, re.Pattern):
            return self.plain(data.pattern)
        if hasattr(kind, "__fspath__"):
            return self.plain(data.__fspath__())
        if kind.__module__.partition(".")[0] in _TEXTS:
            return self.plain(str(data))
        if hasattr(kind, "__struct_fields__") or hasattr(kind, "__attrs_attrs__"):
            return msgspec.to_builtins(data, builtin_types=(Decimal,), str_keys=True, enc_hook=self.plain)
        if kind is msgspec.Raw:
            return data
        if self._hook is not None:
            return self.plain(self._hook(data))
        name = f"{data.__class__.__module__}.{data.__class__.__qualname__}"
        raise TypeError(f"objects of type {name} are not known, and no json_encoder= says what stands for them")

    def _key(self, key: Any) -> Any:
        plain = self.plain(key)
        if plain is None or plain.__class__ is bool:
            return {None: "null", True: "true", False: "false"}[plain]
        return key if plain.__class__ in (list, dict) else plain  # which msgspec refuses by name

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise EventTooLarge(
                f"data is more than {self._max_bytes} bytes of JSON, which is the most that it takes; a generator may "
                "be endless"
            )


def _is_plain(data: Any) -> bool:
    """Whether FastAPI writes this as msgspec does: strings, numbers, lists and dictionaries alone."""
    values = data.values() if data.__class__ is dict else data if data.__class__ is list else (data,)
    kinds = {value.__class__ for value in values}
    if kinds <= _SCALARS:
        return True
    return kinds <= _PLAIN and all([_is_plain(value) for value in values if value.__class__ not in _SCALARS])


def _checked(data: str) -> str:
    try:
        data.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(
            f"data {shown(data)} is not allowed: U+{ord(data[error.start]):04X} at position {error.start}; "
            "it takes text without lone surrogates"
        ) from None
    # A member of a string enumeration would go through f-strings as its name.
    return str.__str__(data)


DATA = DataEncoder()
"""The encoder of whoever has no function of their own and knows no `max_event_size`."""
