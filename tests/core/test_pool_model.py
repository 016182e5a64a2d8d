"""Random lives of a pool, held step by step against a model that knows no queue, counter or free list.

The model is a list of all requests there ever were. Whatever is asserted about the pool is worked out from that list
from scratch after each step.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ssepool.config import PoolConfig
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState, WaiterState
from ssepool.core.waiting import Waiter
from ssepool.errors import PoolClosed, PoolFull

pytestmark = pytest.mark.timeout(360)  # it takes seconds; a failure may take minutes to be made short

ACQUIRE, SEND, IDLE, LIFETIME = 8.0, 5.0, 20.0, 45.0

HOLDS = ("reserved", "open", "closing")


class Request:
    """One request, and all that has happened to it. `place` is where it is now, or how it ended."""

    def __init__(
        self, number: int, now: float, ip: str, keys: list[tuple[str, str]], here: bool, grants: list[int]
    ) -> None:
        self.number = number
        self.ip = ip
        self.came = now
        self.keys = keys
        self.here = here
        """Whether it takes the slot that it is granted."""
        self.grants = grants
        self.place = ""
        self.queued = self.admitted = False
        self.waited = self.opened = 0.0
        self.reserved_at = self.opened_at = self.active_at = self.closing_at = 0.0
        self.blocked_at: float | None = None
        self.drain_at: float | None = None
        self.reason: Reason | None = None
        self.waiter: Waiter | None = None
        self.slot: Slot | None = None
        self.handle: tuple[int, int] | None = None
        self.told: list[WaiterState] = []

    # What the pool calls.

    def granted(self, slot: Slot) -> bool:
        if self.here:
            assert self.slot is None
            self.slot = slot
            self.told.append(WaiterState.GRANTED)
            self.grants.append(self.number)
        return self.here

    def failed(self, outcome: WaiterState) -> None:
        self.told.append(outcome)


class PoolAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.now = 0.0
        self.steps = 0
        self.state = "open"
        self.grants: list[int] = []
        """Numbers of requests that waited, in the order in which the pool granted them slots."""
        self.expected_grants: list[int] = []
        self.handles: set[tuple[int, int]] = set()

    @initialize(
        size=st.integers(1, 4),
        max_waiting=st.integers(0, 5),
        on_full=st.sampled_from(["wait", "wait", "wait", "retry", "reject"]),
        per_ip=st.sampled_from([None, 2]),
        per_topic=st.sampled_from([None, 3]),
        waiting_per_ip=st.sampled_from([None, 1, 2]),
    )
    def begin(
        self,
        size: int,
        max_waiting: int,
        on_full: Any,
        per_ip: int | None,
        per_topic: int | None,
        waiting_per_ip: int | None,
    ) -> None:
        self.config = PoolConfig(
            size=size,
            max_waiting=max_waiting,
            on_full=on_full,
            acquire_timeout=ACQUIRE,
            send_timeout=SEND,
            idle_timeout=IDLE,
            max_lifetime=LIFETIME,
            max_per_ip=per_ip,
            max_per_topic=per_topic,
            max_waiting_per_ip=waiting_per_ip,
        )
        self.target = size
        self.pool = Pool(self.config)
        self.pool.open()

    # The model.

    def at(self, *places: str) -> list[Request]:
        return [request for request in self.requests if request.place in places]

    def free(self) -> int:
        return max(0, self.target - len(self.at(*HOLDS)))

    def taken(self) -> Counter[tuple[str, str]]:
        taken = Counter(key for request in self.at("waiting", *HOLDS) for key in request.keys)
        if self.config.max_waiting_per_ip:
            taken.update(("waiting", request.ip) for request in self.at("waiting"))
        return taken

    def refusal(self, ip: str, keys: list[tuple[str, str]]) -> type[Exception] | None:
        most = {"ip": self.config.max_per_ip, "topic": self.config.max_per_topic}
        if self.state != "open":
            return PoolClosed
        if any(self.taken()[key] >= (most[key[0]] or 0) for key in keys):
            return PoolFull
        if self.free():
            return None
        if self.config.on_full != "wait" or len(self.at("waiting")) >= self.config.max_waiting:
            return PoolFull
        waiting, most_waiting = [request.ip for request in self.at("waiting")], self.config.max_waiting_per_ip
        if most_waiting is not None and waiting.count(ip) >= most_waiting:
            return PoolFull
        return None

    def hand_out(self) -> None:
        """Give free slots to those who wait, the first first."""
        while self.state == "open" and self.free() and self.at("waiting"):
            request = self.at("waiting")[0]
            if request.here:
                self.expected_grants.append(request.number)
                self.admit(request)
            else:
                request.place = "cancelled"

    def admit(self, request: Request) -> None:
        request.place, request.admitted = "reserved", True
        request.reserved_at, request.waited = self.now, self.now - request.came

    def verdict(self, request: Request) -> Reason | None:
        """Why the reaper should send this client away now."""
        now = self.now
        if request.place == "reserved":
            return Reason.ERROR if request.reserved_at + SEND <= now else None
        if request.blocked_at is not None and request.blocked_at + SEND <= now:
            return Reason.SEND_TIMEOUT
        if request.drain_at is not None and request.drain_at <= now:
            return Reason.DRAINED
        if request.opened_at + LIFETIME <= now:
            return Reason.LIFETIME
        return Reason.IDLE if request.active_at + IDLE <= now else None

    def pick(self, among: list[Request], place: int) -> Request:
        return among[place % len(among)]

    def close_stream(self, request: Request, reason: Reason) -> None:
        self.pool.closing(request.slot, reason, self.now)
        request.place, request.reason, request.closing_at = "closing", reason, self.now

    def release(self, request: Request, reason: Reason) -> None:
        slot = request.slot
        generation = slot.generation
        was_open = request.place != "reserved"
        request.place, request.reason = "released", request.reason or reason
        request.opened = self.now - request.opened_at if was_open else 0.0
        self.hand_out()
        self.pool.release(slot, self.now, reason)
        assert slot.generation > generation

    def refuse_waiters(self) -> None:
        for request in self.at("waiting"):
            request.place = "refused"

    # The steps.

    @rule(ip=st.sampled_from("pqr"), topics=st.sets(st.sampled_from("ab"), max_size=2), here=st.integers(0, 4))
    def acquire(self, ip: str, topics: set[str], here: int) -> None:
        keys = [("ip", ip)] if self.config.max_per_ip else []
        keys += [("topic", topic) for topic in sorted(topics)] if self.config.max_per_topic else []
        request = Request(len(self.requests), self.now, ip, keys, here > 0, self.grants)
        expected = self.refusal(ip, keys)
        assert self.pool.refuses(ip, None, sorted(topics)) is (expected is not None)
        had_free = self.free() > 0
        self.requests.append(request)
        try:
            place = self.pool.acquire(self.now, request, ip=ip, topics=sorted(topics))
        except (PoolFull, PoolClosed) as error:
            assert type(error) is expected
            request.place = "refused"
            return
        assert expected is None
        if isinstance(place, Slot):
            assert had_free
            request.slot = place
            self.admit(request)
        else:
            assert not had_free
            request.waiter, request.place, request.queued = place, "waiting", True

    @precondition(lambda self: self.at("reserved"))
    @rule(place=st.integers(0, 9))
    def start(self, place: int) -> None:
        request = self.pick(self.at("reserved"), place)
        self.pool.start(request.slot, self.now)
        request.place = "open"
        request.opened_at = request.active_at = self.now

    @precondition(lambda self: self.at("open"))
    @rule(place=st.integers(0, 9), what=st.sampled_from(["sent_at", "received_at"]))
    def be_active(self, place: int, what: str) -> None:
        request = self.pick(self.at("open"), place)
        setattr(request.slot, what, self.now)
        request.active_at = self.now

    @precondition(lambda self: self.at("open"))
    @rule(place=st.integers(0, 9))
    def block(self, place: int) -> None:
        request = self.pick(self.at("open"), place)
        self.pool.block(request.slot, self.now)
        request.blocked_at = self.now

    @precondition(lambda self: any(request.blocked_at is not None for request in self.at("open")))
    @rule(place=st.integers(0, 9))
    def unblock(self, place: int) -> None:
        request = self.pick([request for request in self.at("open") if request.blocked_at is not None], place)
        self.pool.unblock(request.slot)
        request.blocked_at = None

    @precondition(lambda self: self.at("open"))
    @rule(place=st.integers(0, 9), reason=st.sampled_from(Reason))
    def say_goodbye(self, place: int, reason: Reason) -> None:
        self.close_stream(self.pick(self.at("open"), place), reason)

    @precondition(lambda self: self.at(*HOLDS))
    @rule(place=st.integers(0, 9), reason=st.sampled_from(Reason))
    def go(self, place: int, reason: Reason) -> None:
        self.release(self.pick(self.at(*HOLDS), place), reason)

    @precondition(lambda self: self.at("waiting"))
    @rule(place=st.integers(0, 9))
    def leave(self, place: int) -> None:
        request = self.pick(self.at("waiting"), place)
        self.pool.leave(request.waiter)
        request.place = "cancelled"

    @precondition(lambda self: any(request.waiter for request in self.requests))
    @rule(place=st.integers(0, 99))
    def leave_too_late(self, place: int) -> None:
        ended = [request for request in self.requests if request.waiter and request.place != "waiting"]
        if ended:
            self.pool.leave(self.pick(ended, place).waiter)

    @precondition(lambda self: self.at("waiting"))
    @rule(place=st.integers(0, 9))
    def vanish(self, place: int) -> None:
        """A waiter goes, and the pool will hear of it only when it grants."""
        self.pick(self.at("waiting"), place).here = False

    @rule(passed=st.sampled_from([0.5, 1.0, 3.0, 10.0]), obey=st.integers(0, 3))
    def reap(self, passed: float, obey: int) -> None:
        self.now += passed
        timed_out = [request for request in self.at("waiting") if request.came + ACQUIRE <= self.now]
        evict = [(request, reason) for request in self.at("reserved", "open") if (reason := self.verdict(request))]
        overdue = [request for request in self.at("closing") if request.closing_at + SEND <= self.now]
        for request in timed_out:
            request.place = "timed_out"
        reaped = self.pool.reap(self.now)
        assert reaped.timed_out == len(timed_out)
        assert {slot: reason for slot, reason in reaped.evict} == {request.slot: reason for request, reason in evict}
        assert len(reaped.evict) == len(evict)
        assert set(reaped.overdue) == {request.slot for request in overdue}
        if not obey:
            return
        for request in overdue:
            self.release(request, Reason.ERROR)
        for request, reason in evict:
            if request.place == "open":
                self.close_stream(request, reason)
            else:
                self.release(request, reason)

    @rule(size=st.integers(1, 6))
    def resize(self, size: int) -> None:
        if self.state != "open":
            with pytest.raises(PoolClosed):
                self.pool.resize(size, self.now)
            return
        self.target = size
        self.hand_out()
        self.pool.resize(size, self.now)

    @precondition(lambda self: self.steps > 20 and self.state == "open")
    @rule(seconds=st.sampled_from([0.0, 4.0, 15.0]))
    def drain(self, seconds: float) -> None:
        self.state = "draining"
        self.refuse_waiters()
        staying = sorted(self.at("reserved", "open"), key=lambda request: request.slot.index)
        for place, request in enumerate(staying):
            request.drain_at = self.now + seconds * place / len(staying)
        self.pool.drain(self.now, seconds)

    @precondition(lambda self: self.steps > 30 and self.state != "closed")
    @rule(sure=st.integers(0, 3))
    def close(self, sure: int) -> None:
        if sure:
            return
        self.state = "closed"
        self.refuse_waiters()
        assert set(self.pool.close()) == {request.slot for request in self.at(*HOLDS)}

    # What always holds.

    @invariant()
    def gauges(self) -> None:
        self.steps += 1
        stats = self.pool.stats()
        assert stats.free + stats.reserved + stats.open + stats.closing == stats.size
        assert stats.free == 0 or stats.waiting == 0
        assert stats.state == self.state
        assert stats.free == self.free()
        assert (stats.reserved, stats.open, stats.closing) == tuple(len(self.at(place)) for place in HOLDS)
        assert stats.waiting == len(self.at("waiting"))
        assert [waiter.applicant for waiter in self.pool.waiting] == self.at("waiting")

    @invariant()
    def counters(self) -> None:
        stats, requests = self.pool.stats(), self.requests
        assert stats.requests == len(requests)
        assert stats.queued == sum(request.queued for request in requests)
        assert stats.granted == sum(request.admitted for request in requests)
        assert stats.timed_out == len(self.at("timed_out"))
        assert stats.cancelled == len(self.at("cancelled"))
        assert stats.refused == len(self.at("refused"))
        assert stats.wait_seconds == sum(request.waited for request in requests)
        assert stats.open_seconds == sum(request.opened for request in requests)
        released = Counter(request.reason for request in self.at("released"))
        assert stats.released == {reason.value: released[reason] for reason in Reason}
        # And so nobody is lost: every request is somewhere, every grant is held or was released.
        assert stats.requests == stats.granted + stats.waiting + stats.timed_out + stats.cancelled + stats.refused
        assert stats.granted == sum(stats.released.values()) + stats.reserved + stats.open + stats.closing

    @invariant()
    def slots(self) -> None:
        indexes = [slot.index for slot in self.pool.slots]
        assert indexes == sorted(set(indexes))
        states = {request.slot: request.place for request in self.at(*HOLDS)}
        assert len(states) == len(self.at(*HOLDS))  # nobody shares a slot
        assert [slot.state.value for slot in self.pool.slots] == [states.get(slot, "free") for slot in self.pool.slots]
        assert self.pool.cells() == "".join(slot.state.value[0] for slot in self.pool.slots)
        assert all(self.pool.slot(slot.index) is slot for slot in self.pool.slots)
        assert all(slot.state is not SlotState.FREE or slot.keys == () for slot in self.pool.slots)

    @invariant()
    def grants_are_in_order_and_each_told_once(self) -> None:
        assert self.grants == self.expected_grants == sorted(self.grants)
        for request in self.requests:
            if request.waiter is not None:
                told = {"timed_out": [WaiterState.TIMED_OUT], "refused": [WaiterState.REFUSED]}.get(request.place, [])
                assert request.told == (told or [WaiterState.GRANTED] * request.admitted)
                assert (request.waiter.state is WaiterState.WAITING) == (request.place == "waiting")

    @invariant()
    def limits_count_who_waits_and_who_holds(self) -> None:
        assert self.pool.limits.taken() == dict(self.taken())
        most = {"ip": self.config.max_per_ip, "topic": self.config.max_per_topic}
        most["waiting"] = self.config.max_waiting_per_ip
        assert all(count <= most[kind] for (kind, _), count in self.taken().items())

    @invariant()
    def handles_are_never_reused(self) -> None:
        for request in self.at("reserved"):
            if request.handle is None:
                request.handle = (request.slot.index, request.slot.generation)
                assert request.handle not in self.handles
                self.handles.add(request.handle)

    def teardown(self) -> None:
        while held := self.at(*HOLDS):  # whoever is granted a slot by that goes too
            self.release(held[0], Reason.SHUTDOWN)
        stats = self.pool.stats()
        assert stats.free == stats.size == self.target
        assert stats.waiting == 0
        assert self.pool.limits.taken() == {}


TestPoolAndModel = PoolAndModel.TestCase
TestPoolAndModel.settings = settings(max_examples=150, stateful_step_count=60)
