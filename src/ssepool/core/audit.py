"""Audit: what was asked of administration, and what was refused for want of rights. Never a credential, a cookie, a
query or data. Pure: time is an argument.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ssepool.core.addresses import counted
from ssepool.core.rates import Rate

MAX_ENTRIES = 1000
"""Entries of each kind that are kept at most: strangers who are refused must not push out what operators did."""

REFUSALS_PER_SECOND = 1.0
"""Refusals a second of one address that are written down; ten at once."""

ALL_REFUSALS_PER_SECOND = 20.0
"""Refusals a second of all addresses together that are written down."""

MAX_TEXT_CHARACTERS = 256
"""Characters of one text of an entry at most."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the audit log."""

    time: Annotated[float, Meta(description="Unix time in seconds.")]
    action: Annotated[str, Meta(description="`subscribe`, `publish`, or the part of administration.")]
    method: Annotated[str, Meta(description="The method of the request.")]
    path: Annotated[str, Meta(description="The template of its path, as in this document.")]
    parts: Annotated[dict[str, Any], Meta(description="What stood in its places, and what was ordered.")]
    ip: Annotated[str | None, Meta(description="The address that it came from; null on a Unix socket.")]
    subject: Annotated[str | None, Meta(description="Who asked, as the issuer says.")]
    issuer: Annotated[str | None, Meta(description="Who says so.")]
    token_id: Annotated[str | None, Meta(description="The token that was shown.")]
    allowed: Annotated[bool, Meta(description="Whether it was allowed.")]
    status: Annotated[int, Meta(description="The status of the answer.")]
    why: Annotated[str | None, Meta(description="Why it was not allowed.")] = None
    passed_over: Annotated[int, Meta(description="Refusals since the last one that were too many to write down.")] = 0

    def line(self) -> str:
        """The entry as a line of JSON, with all that is not ASCII escaped: it may have been a stranger's."""
        return json.dumps(msgspec.to_builtins(self))


class Trail:
    """The last entries, and a rate for refusals."""

    def __init__(self) -> None:
        self._administered: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._refused: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._rate = Rate(REFUSALS_PER_SECOND)
        self._all = Rate(ALL_REFUSALS_PER_SECOND, max_sources=1, cells=1)
        self._passed_over = 0

    def add(self, entry: Entry, now: float) -> Entry | None:
        """Keep an entry, and return it as it is to be written down; None if it is a refusal too many. `now` is in
        seconds of a monotonic clock."""
        if entry.allowed:
            self._administered.append(entry)
            return entry
        source = counted(entry.ip) if entry.ip else ""
        if self._rate.take(source, now) or self._all.take("", now):
            self._passed_over += 1
            return None
        entry = msgspec.structs.replace(entry, passed_over=self._passed_over)
        self._passed_over = 0
        self._refused.append(entry)
        return entry

    def newest(self, limit: int) -> list[Entry]:
        """The last entries of both kinds, the newest first."""
        return newest([*self._administered, *self._refused], limit)


def newest(entries: list[Entry], limit: int) -> list[Entry]:
    """So many of these entries, the newest first."""
    return sorted(entries, key=lambda entry: entry.time, reverse=True)[:limit]
