"""Tickets: what a client without a credential of its own is let in by, once."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from ssepool.config import MiB
from ssepool.core.grant import Grant
from ssepool.core.remembered import Remembered
from ssepool.core.rights import Right
from ssepool.core.topics import Subscription
from ssepool.errors import InvalidGrant

TICKET_SECONDS = 30.0
"""For how long a ticket may be used."""
MAX_TICKETS = 10_000
"""Tickets of a node that have not been used, at most; beyond that the oldest are worth nothing."""
MAX_TICKETS_BYTES = 16 * MiB
"""Bytes of all these at most."""


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wish, and what its holder's grant says of it: it lets nobody do anything else."""

    topics: tuple[str, ...]
    """The topics of the wish, sorted."""
    patterns: tuple[str, ...]
    """The patterns of the wish, sorted."""
    subscribe: tuple[Right, ...]
    """Which of both the holder was granted; what is not here was public."""
    subject: str | None = None
    """As the holder's grant has it, like the rest."""
    issuer: str | None = None
    """Who vouches for the subject."""
    data: Any = None
    """What is kept on the connection."""
    expires_at: float | None = None
    """When the grant ends, in seconds since the epoch."""
    issued_at: float | None = None
    """When it was issued."""
    token_id: str | None = None
    """The token that it comes from."""

    @classmethod
    def of(cls, wanted: Subscription, grant: Grant) -> Self:
        """A ticket for whoever has this grant and wants this."""
        names, patterns = sorted(wanted.topics), sorted(wanted.patterns, key=lambda pattern: pattern.text)
        return cls(
            topics=tuple(names),
            patterns=tuple(pattern.text for pattern in patterns),
            subscribe=(
                *(Right(name) for name in names if grant.subscribe.cover(name)),
                *(Right(item.text, "urlpattern") for item in patterns if grant.subscribe.cover_pattern(item)),
            ),
            subject=grant.subject,
            issuer=grant.issuer,
            data=grant.data,
            expires_at=grant.expires_at,
            issued_at=grant.issued_at,
            token_id=grant.token_id,
        )

    def is_for(self, wanted: Subscription) -> bool:
        """Whether this is exactly the wish."""
        return self.topics == tuple(sorted(wanted.topics)) and self.patterns == tuple(
            sorted(pattern.text for pattern in wanted.patterns)
        )

    def grant(self) -> Grant:
        """What it grants."""
        return Grant(
            subject=self.subject,
            issuer=self.issuer,
            subscribe=self.subscribe,
            data=self.data,
            expires_at=self.expires_at,
            issued_at=self.issued_at,
            token_id=self.token_id,
        )


class Tickets:
    """The tickets of one node that have not been used. Pure: times are in seconds of one clock."""

    def __init__(self) -> None:
        """There is none."""
        self._kept: Remembered[bytes] = Remembered(MAX_TICKETS, MAX_TICKETS_BYTES)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: str, ticket: Ticket, now: float) -> None:
        """Keep a ticket under a name that nobody can guess. Raises `InvalidGrant` for data that is not JSON: the node
        where the ticket is used may be another one."""
        try:
            written = msgspec.json.encode(ticket)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidGrant(f"the data of the grant is not JSON, so that no ticket can have it: {error}") from error
        self._kept.add(name, written, until=now + TICKET_SECONDS, size=len(written), now=now)

    def use(self, name: str, now: float) -> Ticket | None:
        """The ticket of this name, which is gone then; None if there is none, or no longer."""
        written = self._kept.take(name, now)
        return None if written is None else msgspec.json.decode(written, type=Ticket)
