"""Latest: what a client that lagged is given under the policy `latest`, in bounded pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ssepool.core.event import Entry
from ssepool.core.feed import JOIN_BYTES, joined


class Reader(Protocol):
    """The link that the pages are for."""

    replay: Any
    """What it is given before its feed; None once it has that."""
    chunked: bool
    """Whether its frames are chunks."""


class Latest:
    """The newest entries of the topics that a client lacks, before it goes on with its feed.

    The entries are shared with all other clients. A page is the client's own, and there is one at a time: were all of
    them joined at once, each of a thousand slow clients could have its own copy of `lag_bytes`.
    """

    __slots__ = ("_left", "taken")

    waiting = False
    """Nothing has to be asked for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """The entries, in order."""
        self._left = list(reversed(entries))
        self.taken = 0
        """Events in the page returned last."""

    def next(self, link: Reader) -> bytes:
        """The next page, of about `JOIN_BYTES`. With the last one the link goes on with its feed."""
        page, size = [], 0
        while self._left and size < JOIN_BYTES:
            page.append(self._left.pop())
            size += len(page[-1].chunk)
        if not self._left:
            link.replay = None
        self.taken = len(page)
        return joined(page, link.chunked)
