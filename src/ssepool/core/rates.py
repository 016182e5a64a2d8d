"""Rates: how much of something each source may do a second. Pure: time is an argument, in seconds of one clock.

A source is a user who is known, or else an address as `core/addresses.py` counts it. What is written here knows no more
of it than its name.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

from ssepool.config import HubConfig
from ssepool.core.addresses import counted
from ssepool.core.topics import shown
from ssepool.errors import RateExceeded

BURST_SECONDS = 10.0
"""A source that has done nothing for so long may do at once what its rate gives it in that time; one thing always."""

MAX_SOURCES = 10_000
"""Sources that a rate remembers one by one; beyond that the one that was seen least recently leaves."""

CELLS = 16_384
"""Places for the debts of those that have left. Each takes eight bytes."""

SLACK = 0.001
"""The part of one thing by which the sum of many may be too large: numbers are rounded."""


class Rate:
    """A token bucket for each source, as the time at which it will be full again (the form that ITU-T I.371 calls a
    virtual schedule): a bucket that is full needs no record, and filling it costs nothing.

    Memory is bounded, and who leaves gains nothing by it: its debt stays in a cell that it shares with the others of
    its hash. Who is new begins with the debt of its cell, so the worst that a crowd of addresses does to an honest one
    is to have it wait until a bucket fills, and who was refused is refused however many came after it.
    """

    def __init__(self, per_second: float, *, max_sources: int = MAX_SOURCES, cells: int = CELLS) -> None:
        """`per_second` is more than 0."""
        self.per_second = per_second
        """What a source may do a second."""
        self._cost = 1 / per_second
        self._depth = max(BURST_SECONDS, self._cost)
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._max_sources = max_sources
        # By Python's hash of strings, which has a secret of the process: nobody chooses whose cell he shares.
        self._cells = array("d", bytes(8 * cells))

    @property
    def burst(self) -> int:
        """What a source may do at once at most."""
        return int(self._depth / self._cost + SLACK)

    def wait(self, source: str, now: float, count: int = 1) -> float:
        """Seconds until this source may do so much; 0 if it may now. Takes nothing. For more than `burst` it is the
        wait for all of it, which never ends."""
        full_at = self._full_at.get(source)
        if full_at is None:
            full_at = self._cells[hash(source) % len(self._cells)]
        late = max(full_at, now) + count * self._cost - now - self._depth
        return late if late > SLACK * self._cost else 0.0

    def take(self, source: str, now: float, count: int = 1) -> float:
        """Do so much now. Returns 0, or the seconds that it has to wait, and then nothing has been taken."""
        wait = self.wait(source, now, count)
        if not wait:
            records = self._full_at
            if source in records:
                records.move_to_end(source)
                records[source] = max(records[source], now) + count * self._cost
            else:
                debt = self._cells[hash(source) % len(self._cells)]
                records[source] = max(debt, now) + count * self._cost
                if len(records) > self._max_sources:
                    self._push_out()
        elif source in self._full_at:
            self._full_at.move_to_end(source)
        return wait

    def _push_out(self) -> None:
        source, full_at = self._full_at.popitem(last=False)
        cell = hash(source) % len(self._cells)
        self._cells[cell] = max(self._cells[cell], full_at)

    def __len__(self) -> int:
        return len(self._full_at)


class Rates:
    """The rates of a hub, each None if it is not set, and how often each has refused something."""

    def __init__(self, config: HubConfig) -> None:
        self.subscribe = _rate(config.subscribe_rate)
        """Requests for the stream."""
        self.publish = _rate(config.publish_rate)
        """Events that are published over HTTP."""
        self.message = _rate(config.message_rate)
        """Messages of clients."""
        self.failure = _rate(config.failure_rate)
        """Requests that were refused."""
        self.refused = {"subscribe": 0, "publish": 0, "message": 0, "failure": 0}
        """Requests that each has turned away."""

    def refusal(
        self, kind: str, ip: str | None, now: float, count: int = 1, *, user: str | None = None, take: bool = True
    ) -> RateExceeded | None:
        """Take `count` for a user, or else for an address; or why it may not, which is counted. Without `take` this
        only looks. Who is neither known nor has an address has no rate."""
        rate: Rate | None = getattr(self, kind)
        source = _source(ip, user)
        if rate is None or source is None:
            return None
        seconds = (rate.take if take else rate.wait)(source, now, count)
        if not seconds:
            return None
        self.refused[kind] += 1
        return RateExceeded(
            f"{kind}_rate = {rate.per_second:g} is used up by {source}: it allows {rate.burst} at once and "
            f"{rate.per_second:g} a second; come back in {seconds:.1f} s",
            seconds,
        )

    def allows(
        self, kind: str, ip: str | None, now: float, count: int = 1, *, user: str | None = None, take: bool = False
    ) -> bool:
        """Whether a user, or else an address, may do so much now. Without `take` this only looks, and it counts no
        refusal: for who is asked again by `refusal`."""
        rate: Rate | None = getattr(self, kind)
        if rate is None or (source := _source(ip, user)) is None:
            return True
        return not (rate.take if take else rate.wait)(source, now, count)


def _source(ip: str | None, user: str | None) -> str | None:
    """What a request counts as. A user counts as himself wherever he is: many may share an address, and one may have
    many."""
    if user is not None:
        return f"user {shown(user)}"
    return counted(ip) if ip else None


def _rate(per_second: float | None) -> Rate | None:
    return Rate(per_second) if per_second else None
