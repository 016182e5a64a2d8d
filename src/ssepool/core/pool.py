"""Pool: all slots, the waiting queue and the limits.

The pool is a plain object without clock, lock, socket or task. Each call takes the time as `now` (seconds of any
monotonic clock), does one whole step and returns what the caller has to do. Nothing awaits inside a step, so no
other step can come between: a grant is synchronous and total, and there is no race to guard against.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter

from ssepool.config import PoolConfig
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.limits import Keys, Limits
from ssepool.core.reaped import Reaped
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import (
    POOL_STEPS,
    SLOT_STEPS,
    IllegalStep,
    PoolState,
    Reason,
    SlotState,
    WaiterState,
    check_step,
)
from ssepool.core.stats import PoolStats
from ssepool.core.term import ENDLESS, Term
from ssepool.core.waiting import Applicant, Waiter, WaitingQueue
from ssepool.errors import ConfigError, PoolClosed, PoolFull

DRAIN_SECONDS = 30.0
"""How long a drain takes by default."""

_LETTERS = {state: state.value[0] for state in SlotState}
_index = attrgetter("index")


class Pool:
    """A fixed number of slots, handed out first come, first served.

    `jitter` returns a number from 0 to 1 and is what lifetimes are shortened by (up to 5 %), so that clients that
    came together do not come back together.
    """

    def __init__(self, config: PoolConfig | None = None, *, jitter: Callable[[], float] = lambda: 0.0) -> None:
        self.config = config or PoolConfig()
        """The settings, as they were given; `resize` does not change them."""
        self.state = PoolState.NEW
        """Where the pool stands."""
        self.waiting = WaitingQueue()
        """The queue."""
        self.limits = Limits(self.config)
        """How many connections each address, user and topic has."""
        self.slots: list[Slot] = []
        """All slots, by index."""
        self._jitter = jitter
        self._target = self.config.size
        self._free: deque[Slot] = deque()
        """The slots without a client; the next to be handed out is the last."""
        self._lowest = 0
        """No index below this one is missing among the slots."""
        self._generation = 0
        self._count = dict.fromkeys(SlotState, 0)
        self._beat_at: float | None = None
        self._beat_index = 0.0
        self._requests = self._queued = self._granted = self._timed_out = self._cancelled = self._refused = 0
        self._wait_seconds = self._open_seconds = 0.0
        self._released: dict[str, int] = {reason.value: 0 for reason in Reason}

    # The pool as a whole.

    def open(self) -> None:
        """Make the slots and take requests from now on."""
        self._become(PoolState.OPEN)
        self._grow(self._target)

    def resize(self, size: int, now: float) -> None:
        """Change the number of slots at once: `aim`, and then `approach` until the pool is there."""
        self.aim(size)
        while self.approach(now, size + len(self.slots)):
            pass

    def aim(self, size: int) -> None:
        """Say how many slots there are to be; `approach` makes new ones and gives surplus ones up.

        Raises `ConfigError` for a size that the settings do not allow and `PoolClosed` if the pool is not open.
        """
        self.config.check_resize(size)
        if self.state is not PoolState.OPEN:
            raise PoolClosed(f"a pool that is {self.state.value} cannot be resized ({self._numbers()})")
        self._target = size
        if size < len(self.slots):
            # The highest go, the lowest is handed out first.
            self._free = deque(sorted(self._free, key=_index, reverse=True))

    def approach(self, now: float, slots: int) -> bool:
        """Make or give up at most so many slots, on the way to the size aimed at; False once that is done.

        New ones go to waiters at once. Surplus ones that clients have go as these leave.
        """
        if self.state is not PoolState.OPEN:
            return False
        surplus = min(slots, len(self._free), len(self.slots) - self._target)
        for _ in range(surplus):
            self._retire(self._free.popleft())
        missing = min(slots, self._target - len(self.slots))
        self._grow(missing)
        self._grant(now)
        return surplus > 0 or missing > 0

    def drain(self, now: float, seconds: float) -> None:
        """Take no more requests, refuse all waiters, and have the clients leave one by one over `seconds`.

        The reaper hands the slots out for closing, with the reason `drained`, at an even pace.
        """
        if not 0 <= seconds < NEVER:
            raise ConfigError(f"a drain takes {seconds!r} seconds; it takes a number, at least 0")
        self._become(PoolState.DRAINING)
        self._refuse_waiters()
        held = [slot for slot in self.slots if slot.state in (SlotState.OPEN, SlotState.RESERVED)]
        for place, slot in enumerate(held):
            slot.drain_at = now + seconds * place / len(held)
            if slot.state is SlotState.OPEN:
                slot.due = min(slot.due, slot.drain_at)

    def close(self) -> list[Slot]:
        """Take no more requests, refuse all waiters, and return the slots whose clients are to be sent away."""
        if self.state is PoolState.CLOSED:
            return []
        self._become(PoolState.CLOSED)
        self._refuse_waiters()
        return [slot for slot in self.slots if slot.state is not SlotState.FREE]

    # A request's way through the pool.

    def acquire(
        self,
        now: float,
        applicant: Applicant,
        *,
        ip: str | None = None,
        user: str | None = None,
        topics: Iterable[str] = (),
        patterns: Iterable[str] = (),
        ends_at: float = NEVER,
        grant: Grant = STRANGER,
    ) -> Slot | Waiter:
        """A free slot, RESERVED for the caller, or a place in the queue for `applicant`, whose `grant` is good until
        the time `ends_at`.

        Raises `PoolClosed` if the pool is not open, and `PoolFull` if a limit is reached or, with no slot free, the
        queue is full or `on_full` is not `wait`.
        """
        self._requests += 1
        keys = self.limits.keys(ip, user, topics, patterns) if patterns or self.limits.any else ()
        waiting_keys = () if self._free else self.limits.waiting_keys(ip)
        if (refusal := self._refusal(keys + waiting_keys)) is not None:
            self._refused += 1
            raise refusal
        self.limits.take(keys + waiting_keys)
        if self._free:  # then nobody waits: rule 2
            self._granted += 1
            return self._reserve(keys, now)
        self._queued += 1
        waiter = Waiter(applicant, keys, now, now + self.config.acquire_timeout, waiting_keys, ends_at, grant)
        self.waiting.join(waiter)
        return waiter

    def refuses(self, ip: str | None, user: str | None, topics: Iterable[str], patterns: Iterable[str] = ()) -> bool:
        """Whether `acquire` would raise."""
        waiting_keys = () if self._free else self.limits.waiting_keys(ip)
        return self._refusal(self.limits.keys(ip, user, topics, patterns) + waiting_keys) is not None

    def exceeds(self, ip: str | None, user: str | None, topics: Iterable[str], patterns: Iterable[str] = ()) -> bool:
        """Whether one more request would exceed a limit."""
        return self.limits.exceeded(self.limits.keys(ip, user, topics, patterns)) is not None

    def _refusal(self, keys: Keys) -> PoolClosed | PoolFull | None:
        if self.state is not PoolState.OPEN:
            return PoolClosed(f"the pool is {self.state.value} ({self._numbers()})")
        if keys and (exceeded := self.limits.exceeded(keys)):
            return PoolFull(f"{exceeded} ({self._numbers()})")
        if not self._free and (self.config.on_full != "wait" or len(self.waiting) >= self.config.max_waiting):
            return PoolFull(f"no slot is free ({self._numbers()})")
        return None

    def leave(self, waiter: Waiter) -> None:
        """The waiter's client has gone: take it out of the queue. Once it has ended, this does nothing."""
        if waiter.state is WaiterState.WAITING:
            self._end_waiter(waiter, WaiterState.CANCELLED)
            self._cancelled += 1

    def refuse(self, waiter: Waiter) -> None:
        """The waiter may not have a slot any more: take it out of the queue, and tell it. Once it has ended, this does
        nothing."""
        if waiter.state is WaiterState.WAITING:
            self._end_waiter(waiter, WaiterState.REFUSED)
            self._refused += 1
            waiter.applicant.failed(WaiterState.REFUSED)

    def run_out(self, now: float) -> list[Waiter]:
        """The waiters that are to be refused because what lets them in has run out."""
        return [waiter for waiter in self.waiting if waiter.ends_at <= now]

    def position(self, waiter: Waiter) -> int:
        """The waiter's place in the queue, from 1; 0 if it does not wait. Walks the queue, from its end."""
        for behind, other in enumerate(reversed(self.waiting)):
            if other is waiter:
                return len(self.waiting) - behind
        return 0

    def start(self, slot: Slot, now: float, term: Term = ENDLESS) -> None:
        """The stream of a RESERVED slot is open, and goes on for its term at the most."""
        self._move(slot, SlotState.OPEN)
        slot.opened_at = now
        if self.config.max_lifetime:
            slot.expires_at = now + self.config.max_lifetime * (1 - 0.05 * self._jitter())
        if term is not ENDLESS:
            if term.ends_at < slot.expires_at:
                slot.expires_at, slot.ends_for = term.ends_at, term.reason
            slot.warns_at, slot.expiring_at = term.warns_at, term.expires_at
        self.schedule(slot)

    def block(self, slot: Slot, now: float) -> None:
        """The client's socket buffer is full since `now`; `unblock` must follow within `send_timeout`."""
        slot.blocked_at = now
        slot.due = min(slot.due, now + self.config.send_timeout)

    def unblock(self, slot: Slot) -> None:
        """The client's socket buffer has room again."""
        slot.blocked_at = NEVER

    def closing(self, slot: Slot, reason: Reason, now: float) -> None:
        """The stream is being ended: what is left to write may take `send_timeout`. The first reason stays."""
        self._move(slot, SlotState.CLOSING)
        slot.reason = reason
        slot.due = now + self.config.send_timeout

    def release(self, slot: Slot, now: float, reason: Reason = Reason.CLIENT_CLOSED) -> None:
        """The client has gone: free the slot and, in the same step, hand it to whoever has waited longest.

        `reason` counts unless `closing` gave one before.
        """
        if slot.state is SlotState.OPEN:
            self.closing(slot, reason, now)
        was_open, opened_at, reason = slot.state is SlotState.CLOSING, slot.opened_at, slot.reason or reason
        self._vacate(slot)
        self._released[reason.value] += 1
        if was_open:
            self._open_seconds += now - opened_at
        if len(self.slots) > self._target:
            self._retire(slot)
        else:
            self._free.append(slot)
        self._grant(now)

    # The reaper's part.

    def reap(self, now: float) -> Reaped:
        """Time out waiters and find the slots to be freed. Looks closely only at slots where something is due."""
        timed_out = 0
        while self.time_out(now):
            timed_out += 1
        evict: list[tuple[Slot, Reason]] = []
        overdue: list[Slot] = []
        warn: list[tuple[Slot, int]] = []
        for slot in [slot for slot in self.slots if slot.due <= now]:
            if slot.state is SlotState.CLOSING:
                overdue.append(slot)
            elif reason := self._verdict(slot, now):
                evict.append((slot, reason))
            else:
                if slot.warns_at <= now:
                    slot.warns_at = NEVER
                    warn.append((slot, max(0, int(slot.expiring_at - now))))
                self.schedule(slot)
        return Reaped(evict, overdue, timed_out, warn)

    def time_out(self, now: float) -> bool:
        """Time out the waiter that came first; False if its time is not up, or nobody waits."""
        if not self.waiting or (waiter := self.waiting.first()).deadline > now:
            return False
        self._end_waiter(waiter, WaiterState.TIMED_OUT)
        self._timed_out += 1
        waiter.applicant.failed(WaiterState.TIMED_OUT)
        return True

    def schedule(self, slot: Slot) -> None:
        """Set when the reaper has to look at an OPEN slot next. Activity only moves this later, so it may wait."""
        slot.due = min(slot.expires_at, slot.warns_at, slot.drain_at, slot.blocked_at + self.config.send_timeout)
        if self.config.idle_timeout:
            slot.due = min(slot.due, slot.active_at() + self.config.idle_timeout)

    def beat(self, now: float) -> list[Slot]:
        """The OPEN slots whose turn for a heartbeat it is: the clients that got no byte since their turn before.

        The turn goes round the slots twice in `heartbeat_interval`: each call returns the share that the time since
        the last call is worth, so a big pool never sends a burst. Because a heartbeat is bytes too, a quiet client
        gets one at every other turn; and whoever got its last byte just after one turn, and so is passed over in the
        next, is reached by the one after that. So no stream is silent for longer than the interval.
        """
        circle = self.config.heartbeat_interval / 2
        passed = 0.0 if self._beat_at is None else min(now - self._beat_at, circle)
        self._beat_at = now
        total, start = len(self.slots), int(self._beat_index)
        self._beat_index += total * passed / circle
        turn = [self.slots[index % total] for index in range(start, min(int(self._beat_index), start + total))]
        if self._beat_index >= total > 0:
            self._beat_index %= total
        quiet = [slot for slot in turn if slot.state is SlotState.OPEN and slot.bytes == slot.beat_bytes]
        for slot in turn:
            slot.beat_bytes = slot.bytes
        return quiet

    # Statistics.

    def slot(self, index: int) -> Slot | None:
        """The slot of this index, if there is one."""
        place = bisect_left(self.slots, index, key=_index)
        return self.slots[place] if place < len(self.slots) and self.slots[place].index == index else None

    def count(self, state: SlotState) -> int:
        """How many slots are in this state."""
        return self._count[state]

    def stats(self) -> PoolStats:
        """The pool's numbers at this moment, frozen."""
        return PoolStats(
            state=self.state.value,
            size=len(self.slots),
            free=self._count[SlotState.FREE],
            reserved=self._count[SlotState.RESERVED],
            open=self._count[SlotState.OPEN],
            closing=self._count[SlotState.CLOSING],
            waiting=len(self.waiting),
            max_waiting=self.config.max_waiting,
            requests=self._requests,
            queued=self._queued,
            granted=self._granted,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            refused=self._refused,
            wait_seconds=self._wait_seconds,
            open_seconds=self._open_seconds,
            released=dict(self._released),
        )

    def cells(self) -> str:
        """One letter a slot, by index: f(ree), r(eserved), o(pen), c(losing)."""
        return "".join([_LETTERS[slot.state] for slot in self.slots])

    def __repr__(self) -> str:
        return f"<Pool {self.state.value} {self._numbers()}>"

    # Private: the steps that the public ones are made of.

    def _numbers(self) -> str:
        passing = (SlotState.RESERVED, SlotState.CLOSING)
        some = "".join([f" {state.value}={self._count[state]}" for state in passing if self._count[state]])
        return f"size={len(self.slots)} open={self._count[SlotState.OPEN]}{some} waiting={len(self.waiting)}"

    def _become(self, state: PoolState) -> None:
        try:
            self.state = check_step(POOL_STEPS, self.state, state)
        except IllegalStep:
            numbers = self._numbers()
            raise PoolClosed(f"a pool that is {self.state.value} cannot become {state.value} ({numbers})") from None

    def _move(self, slot: Slot, state: SlotState) -> None:
        old = slot.state
        slot.state = state if state in SLOT_STEPS[old] else check_step(SLOT_STEPS, old, state)
        self._count[old] -= 1
        self._count[state] += 1

    def _reserve(self, keys: tuple[tuple[str, str], ...], now: float) -> Slot:
        slot = self._free.pop()
        self._move(slot, SlotState.RESERVED)
        slot.keys = keys
        # Whoever reserves opens or releases at once; this bounds the harm of a caller that does neither.
        slot.due = now + self.config.send_timeout
        return slot

    def _vacate(self, slot: Slot) -> None:
        self._move(slot, SlotState.FREE)
        self.limits.give(slot.keys)
        slot.generation += 1
        slot.reset()

    def _grant(self, now: float) -> None:
        while self._free and self.waiting and self.state is PoolState.OPEN:
            waiter = self.waiting.first()
            if waiter.ends_at <= now:
                self.refuse(waiter)
                continue
            self.waiting.leave(waiter)
            self.limits.give(waiter.waiting_keys)
            slot = self._reserve(waiter.keys, now)
            if waiter.applicant.granted(slot):
                waiter.end(WaiterState.GRANTED)
                self._granted += 1
                self._wait_seconds += now - waiter.since
            else:  # the client left in this very moment: on to the next
                waiter.end(WaiterState.CANCELLED)
                self._cancelled += 1
                self._vacate(slot)
                self._free.append(slot)

    def _end_waiter(self, waiter: Waiter, outcome: WaiterState) -> None:
        waiter.end(outcome)
        self.waiting.leave(waiter)
        self.limits.give(waiter.keys + waiter.waiting_keys)

    def _refuse_waiters(self) -> None:
        while self.waiting:
            self.refuse(self.waiting.first())

    def _verdict(self, slot: Slot, now: float) -> Reason | None:
        if slot.state is SlotState.RESERVED:
            return Reason.ERROR
        if slot.blocked_at + self.config.send_timeout <= now:
            return Reason.SEND_TIMEOUT
        if slot.drain_at <= now:
            return Reason.DRAINED
        if slot.expires_at <= now:
            return slot.ends_for
        if self.config.idle_timeout and slot.active_at() + self.config.idle_timeout <= now:
            return Reason.IDLE
        return None

    def _grow(self, slots: int) -> None:
        """Make so many slots, at the lowest places that are missing."""
        for _ in range(slots):
            while self.slot(self._lowest) is not None:
                self._lowest += 1
            slot = Slot(self._lowest, self._generation)
            self.slots.insert(bisect_left(self.slots, slot.index, key=_index), slot)
            self._count[SlotState.FREE] += 1
            self._free.appendleft(slot)  # the lowest index is handed out first

    def _retire(self, slot: Slot) -> None:
        """Take a FREE slot out of the pool."""
        self._lowest = min(self._lowest, slot.index)
        del self.slots[bisect_left(self.slots, slot.index, key=_index)]
        self._count[SlotState.FREE] -= 1
        # A later slot of the same index must not repeat a generation: connection ids are made of the two.
        self._generation = max(self._generation, slot.generation)
