"""Departed: what was known of a client that has left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ssepool.errors import ConnectionReleased


@dataclass(frozen=True, slots=True, eq=False)
class Departed:
    """A client that has left, as `on_disconnect` is told of it. A copy, to be read and kept for as long as one likes.

    It has the names of a `Connection`, and equals the one that it was.
    """

    id: str
    """The name that the connection had."""
    user: str | None
    """Who the client was, as the application said; None if it said nothing."""
    ip: str | None
    """The address that the client came from; None where the server knew none."""
    data: Any
    """The client's own data, as it sent it when it connected."""
    topics: tuple[str, ...]
    """The names of the topics that the client followed, sorted."""
    patterns: tuple[str, ...]
    """The texts of the URL Patterns that the client followed, sorted."""
    opened_at: float
    """When the stream opened, in seconds since the epoch."""
    seconds: float
    """For how long it was open, in seconds."""
    events_sent: int
    """Events that were written to this client."""
    events_skipped: int
    """Events that this client did not get because it was too slow."""
    bytes_sent: int
    """Bytes that were written to this client."""
    reason: str
    """Why it left: a word of `core/states.py`."""

    @property
    def is_open(self) -> bool:
        """False: the client has left."""
        return False

    @property
    def state(self) -> str:
        """`closed`."""
        return "closed"

    async def send(self, data: Any, **fields: Any) -> NoReturn:
        """Raise `ConnectionReleased`: nobody is there to read it."""
        raise ConnectionReleased(f"the client of connection {self.id} has left")

    def close(self, reason: str = "kicked") -> NoReturn:
        """Raise `ConnectionReleased`: there is nothing to close."""
        raise ConnectionReleased(f"the client of connection {self.id} has left")

    def __eq__(self, other: object) -> bool:
        return getattr(other, "id", None) == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Departed {self.id} {self.reason}>"
