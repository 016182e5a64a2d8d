"""Wishes: what requests for the stream ask for, and those of the last ones, which the next will ask for too."""

from __future__ import annotations

from typing import Any, NamedTuple

from ssepool.core.frames import DIALECT, Dialect
from ssepool.core.topics import Subscription

MAX_WISHES = 1024
"""Wishes in each of two generations."""
MAX_QUERY_BYTES = 512
"""Bytes of a query whose wish is remembered."""


class Wish(NamedTuple):
    """What a request asks for. Its patterns have not been compiled."""

    subscription: Subscription
    """The topics and patterns."""
    data: Any
    """The client's own data."""
    dialect: Dialect = DIALECT
    """How the hub is to speak to it."""
    last_event_id: str | None = None
    """The id in a body; what the client has seen since is in the header or the query."""


class Wishes:
    """The wishes of queries that came lately, by the bytes of these: a thousand visitors of a room send the same, and
    reading it is a fifth of what it takes to let one in.

    Two generations of bounded size: when the younger is full it becomes the elder, and what was in that and has not
    been asked for since is forgotten. Wishes that something may be done to later, patterns that are to be compiled and
    a client's own data, are never shared.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._younger: dict[bytes, Wish] = {}
        self._elder: dict[bytes, Wish] = {}

    def __len__(self) -> int:
        return len(self._younger) + len(self._elder)

    def get(self, query: bytes) -> Wish | None:
        """What this query asks for, if it is known."""
        wish = self._younger.get(query)
        if wish is None and (wish := self._elder.get(query)) is not None:
            self.add(query, wish)
        return wish

    def add(self, query: bytes, wish: Wish) -> None:
        """Remember what this query asks for, where it may be shared."""
        if wish.subscription.patterns or wish.data is not None or len(query) > MAX_QUERY_BYTES:
            return
        if len(self._younger) >= MAX_WISHES:
            self._younger, self._elder = {}, self._younger
        self._younger[query] = wish
