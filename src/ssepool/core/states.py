"""The state machines of the pool, and of the links that write to its clients. Every state and every legal step stands
in this file and nowhere else.

A slot goes round, a pool and a waiter go one way. A step that no table has is a defect of the caller: it raises
`IllegalStep` and changes nothing.

    slot     FREE -> RESERVED -> OPEN -> CLOSING -> FREE
                     RESERVED ------------------> FREE      the client left before its stream opened
    pool     NEW -> OPEN -> DRAINING -> CLOSED              (NEW and OPEN may close at once)
    waiter   WAITING -> GRANTED | TIMED_OUT | CANCELLED | REFUSED
    link     NEW -> OPEN <-> FOLLOWING -> FINISHING -> ENDING -> ENDED
             any step to the right may be left out, but NEW is followed by OPEN or ENDED alone
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TypeVar


class SlotState(Enum):
    """Where a slot stands. *Free* means that no client has it; a quiet client's slot is OPEN."""

    FREE = "free"
    RESERVED = "reserved"
    OPEN = "open"
    CLOSING = "closing"

    # Enum's own is a Python function that hashes the name; each step of a slot looks it up several times.
    __hash__ = object.__hash__


class PoolState(Enum):
    """Where the pool stands. Only an OPEN pool takes requests."""

    NEW = "new"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class WaiterState(Enum):
    """How a request in the waiting queue fares. All but WAITING are final."""

    WAITING = "waiting"
    GRANTED = "granted"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class LinkState(Enum):
    """How far the stream to one client has come. Whether its transport takes more at the moment is another question,
    which `stalled` answers in each of these states."""

    NEW = "new"
    """The response's head has not been written."""
    OPEN = "open"
    """The head is out, and this client may be owed more than what its feed has."""
    FOLLOWING = "following"
    """All that may be missing is in the feed, for sure, and the transport takes it. So it is with nearly all links when
    an event comes, and a flush need not ask for everything else."""
    FINISHING = "finishing"
    """The stream ends once everything that is pending has been written."""
    ENDING = "ending"
    """The last frame is on its way; when it is out, the stream ends."""
    ENDED = "ended"
    """The transport has been given back."""

    __hash__ = object.__hash__  # as for SlotState


class Reason(StrEnum):
    """Why a slot was freed. The same words label logs, metrics, the `ssepool.close` event and the dashboard."""

    CLIENT_CLOSED = "client_closed"
    PEER_DEAD = "peer_dead"
    SEND_TIMEOUT = "send_timeout"
    IDLE = "idle"
    LIFETIME = "lifetime"
    LAGGED = "lagged"
    TOKEN_EXPIRED = "token_expired"
    REVOKED = "revoked"
    KICKED = "kicked"
    DRAINED = "drained"
    SHUTDOWN = "shutdown"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def is_final(self) -> bool:
        """Whether the stream is whole, and its client has no reason to come back: then its end is a clean one. Every
        other end is a cut, which a client can tell from it, so that it comes back."""
        return self in _FINAL


_FINAL = frozenset({Reason.COMPLETED, Reason.KICKED, Reason.REVOKED})


SLOT_STEPS: dict[SlotState, frozenset[SlotState]] = {
    SlotState.FREE: frozenset({SlotState.RESERVED}),
    SlotState.RESERVED: frozenset({SlotState.OPEN, SlotState.FREE}),
    SlotState.OPEN: frozenset({SlotState.CLOSING}),
    SlotState.CLOSING: frozenset({SlotState.FREE}),
}
"""The legal steps of a slot."""

POOL_STEPS: dict[PoolState, frozenset[PoolState]] = {
    PoolState.NEW: frozenset({PoolState.OPEN, PoolState.CLOSED}),
    PoolState.OPEN: frozenset({PoolState.DRAINING, PoolState.CLOSED}),
    PoolState.DRAINING: frozenset({PoolState.CLOSED}),
    PoolState.CLOSED: frozenset(),
}
"""The legal steps of a pool."""

WAITER_STEPS: dict[WaiterState, frozenset[WaiterState]] = {
    WaiterState.WAITING: frozenset(
        {WaiterState.GRANTED, WaiterState.TIMED_OUT, WaiterState.CANCELLED, WaiterState.REFUSED}
    ),
    WaiterState.GRANTED: frozenset(),
    WaiterState.TIMED_OUT: frozenset(),
    WaiterState.CANCELLED: frozenset(),
    WaiterState.REFUSED: frozenset(),
}
"""The legal steps of a waiter."""

_FAREWELL = frozenset({LinkState.FINISHING, LinkState.ENDING, LinkState.ENDED})
LINK_STEPS: dict[LinkState, frozenset[LinkState]] = {
    LinkState.NEW: frozenset({LinkState.OPEN, LinkState.ENDED}),
    LinkState.OPEN: _FAREWELL | {LinkState.FOLLOWING},
    LinkState.FOLLOWING: _FAREWELL | {LinkState.OPEN},
    LinkState.FINISHING: _FAREWELL - {LinkState.FINISHING},
    LinkState.ENDING: frozenset({LinkState.ENDED}),
    LinkState.ENDED: frozenset(),
}
"""The legal steps of a link."""


class IllegalStep(RuntimeError):
    """A state was asked to become one that the tables do not lead to."""


State = TypeVar("State", SlotState, PoolState, WaiterState, LinkState)


def check_step(steps: dict[State, frozenset[State]], old: State, new: State) -> State:
    """Return `new` if the table leads there from `old`, else raise `IllegalStep`."""
    if new not in steps[old]:
        allowed = ", ".join(sorted(state.name for state in steps[old])) or "nothing"
        raise IllegalStep(f"{type(old).__name__} {old.name} leads to {allowed}, not to {new.name}")
    return new
