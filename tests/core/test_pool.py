"""The pool in virtual time: the rules of the design, every transition, the reaper, resizing, draining, heartbeats.

Tests that are named `test_rule_N_...` hold the pool against the rules of the pool in docs/design/pool.md.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.config import PoolConfig
from ssepool.core.event import Entry
from ssepool.core.feed import Feed
from ssepool.core.pool import Pool
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import IllegalStep, PoolState, Reason, SlotState, WaiterState
from ssepool.core.term import Term
from ssepool.core.topics import Subscription
from ssepool.core.waiting import Waiter
from ssepool.errors import ConfigError, PoolClosed, PoolFull

FREE, RESERVED, OPEN, CLOSING = SlotState.FREE, SlotState.RESERVED, SlotState.OPEN, SlotState.CLOSING


class Client:
    """Somebody who wants a slot. `look` is called inside the pool's step, at the moment of the answer."""

    def __init__(self, *, here: bool = True, look: Callable[[], None] = lambda: None) -> None:
        self.here = here
        self.look = look
        self.slot: Slot | None = None
        self.answers: list[WaiterState] = []

    def granted(self, slot: Slot) -> bool:
        self.look()
        if self.here:
            self.slot = slot
            self.answers.append(WaiterState.GRANTED)
        return self.here

    def failed(self, outcome: WaiterState) -> None:
        self.look()
        self.answers.append(outcome)


def pool_of(size: int, **settings: Any) -> Pool:
    pool = Pool(PoolConfig(size=size, **settings))
    pool.open()
    return pool


def slot_of(pool: Pool, now: float = 0.0, **who: Any) -> Slot:
    """A slot, reserved."""
    slot = pool.acquire(now, Client(), **who)
    assert isinstance(slot, Slot)
    return slot


def stream_of(pool: Pool, now: float = 0.0, **who: Any) -> Slot:
    """A slot whose stream is open."""
    slot = slot_of(pool, now, **who)
    pool.start(slot, now)
    return slot


def wait(pool: Pool, client: Client | None = None, now: float = 0.0, **who: Any) -> Waiter:
    """A place in the queue."""
    waiter = pool.acquire(now, client or Client(), **who)
    assert isinstance(waiter, Waiter)
    return waiter


def full_pool(size: int, **settings: Any) -> tuple[Pool, list[Slot]]:
    pool = pool_of(size, **settings)
    return pool, [stream_of(pool) for _ in range(size)]


def check(pool: Pool) -> None:
    """The two invariants, and the gauges against the slots themselves."""
    if len(pool.slots) > 1000:
        return  # too slow after each step
    stats = pool.stats()
    assert stats.free + stats.reserved + stats.open + stats.closing == stats.size == len(pool.slots)
    assert stats.free == 0 or stats.waiting == 0 or stats.state != "open"
    assert Counter(slot.state for slot in pool.slots) == Counter({state: pool.count(state) for state in SlotState})


@pytest.fixture(autouse=True)
def every_pool_keeps_the_invariants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check the invariants after each public step of each pool that a test makes."""
    for name in (
        "open",
        "resize",
        "aim",
        "approach",
        "drain",
        "close",
        "acquire",
        "leave",
        "start",
        "closing",
        "release",
        "reap",
    ):
        step = getattr(Pool, name)

        def checked(self: Pool, *args: Any, step: Callable[..., Any] = step, **kwargs: Any) -> Any:
            try:
                return step(self, *args, **kwargs)
            finally:
                check(self)

        monkeypatch.setattr(Pool, name, checked)
    yield


# The rules.


def test_rule_1_a_grant_is_synchronous_and_total() -> None:
    pool, (slot,) = full_pool(1)
    seen: list[tuple[SlotState, int, int]] = []
    client = Client(look=lambda: seen.append((slot.state, len(pool.waiting), pool.count(FREE))))
    waiter = wait(pool, client)
    pool.release(slot, 1.0)
    # While the client was told, slot and queue were as they are afterwards; when release returned, all was done.
    assert seen == [(RESERVED, 0, 0)]
    assert client.slot is slot
    assert (slot.state, waiter.state, len(pool.waiting)) == (RESERVED, WaiterState.GRANTED, 0)


def test_rule_1_a_free_slot_is_granted_in_the_call_that_asks_for_it() -> None:
    pool = pool_of(1)
    client = Client()
    slot = pool.acquire(0.0, client)
    assert isinstance(slot, Slot)
    assert slot.state is RESERVED
    assert client.answers == []  # the answer is what acquire returned


def test_rule_2_first_come_first_served() -> None:
    pool, slots = full_pool(2)
    clients = [Client() for _ in range(5)]
    for client in clients:
        wait(pool, client)
    served = []
    for now in range(5):
        pool.release(slots[now % 2], float(now))
        served += [client for client in clients if client.slot and client not in served]
        pool.start(slots[now % 2], float(now))
    assert served == clients


def test_rule_2_a_newcomer_never_takes_a_slot_while_somebody_waits() -> None:
    pool, (slot,) = full_pool(1)
    first = Client()
    wait(pool, first)
    pool.release(slot, 1.0)
    newcomer = wait(pool, now=1.0)
    assert first.slot is slot
    assert newcomer.state is WaiterState.WAITING


@pytest.mark.parametrize("place", range(5))
def test_rule_2_a_waiter_that_leaves_is_out_on_the_spot_from_any_place(place: int) -> None:
    pool, (slot,) = full_pool(1)
    clients = [Client() for _ in range(5)]
    waiters = [wait(pool, client) for client in clients]
    pool.leave(waiters[place])
    assert waiters[place].state is WaiterState.CANCELLED
    assert [waiter.applicant for waiter in pool.waiting] == clients[:place] + clients[place + 1 :]
    assert pool.stats().cancelled == 1
    pool.release(slot, 1.0)
    assert clients[place].answers == []
    assert clients[0 if place else 1].slot is slot


def test_rule_2_the_bounded_queue_counts_only_the_living() -> None:
    pool, _ = full_pool(1, max_waiting=2)
    for _ in range(100):
        pool.leave(wait(pool))
    first = wait(pool)
    wait(pool)
    with pytest.raises(PoolFull):
        pool.acquire(0.0, Client())
    pool.leave(first)
    wait(pool)


def test_rule_2_leaving_twice_or_after_the_end_changes_nothing() -> None:
    pool, (slot,) = full_pool(1)
    granted, left = wait(pool), wait(pool)
    pool.leave(left)
    pool.release(slot, 1.0)
    before = pool.stats()
    pool.leave(left)
    pool.leave(granted)
    assert pool.stats() == before
    assert (granted.state, left.state) == (WaiterState.GRANTED, WaiterState.CANCELLED)


def test_rule_3_a_grant_that_meets_a_waiter_who_has_just_left_is_passed_on_to_the_next() -> None:
    pool, (slot,) = full_pool(1)
    gone = [Client(here=False), Client(here=False)]
    there, last = Client(), Client()
    waiters = [wait(pool, client) for client in (*gone, there, last)]
    pool.release(slot, 4.0)
    assert [waiter.state.name for waiter in waiters] == ["CANCELLED", "CANCELLED", "GRANTED", "WAITING"]
    assert there.slot is slot
    stats = pool.stats()
    assert (stats.granted, stats.cancelled, stats.wait_seconds) == (2, 2, 4.0)


def test_rule_3_when_all_waiters_have_just_left_the_slot_is_free_and_its_limits_given_back() -> None:
    pool = pool_of(1, max_per_ip=1)
    slot = stream_of(pool)
    for name in "ab":
        wait(pool, Client(here=False), ip=name)
    pool.release(slot, 1.0)
    assert (slot.state, slot.keys, slot.due) == (FREE, (), NEVER)
    assert pool.limits.taken() == {}
    assert slot_of(pool, ip="a") is slot


def test_rule_4_time_is_an_argument_and_reap_only_says_what_is_to_be_done() -> None:
    pool, slots = full_pool(3, idle_timeout=10, acquire_timeout=5)
    client = Client()
    wait(pool, client)
    assert pool.reap(4.9).timed_out == 0
    assert pool.reap(5.0).timed_out == 1
    first = pool.reap(10.0)
    assert first.evict == [(slot, Reason.IDLE) for slot in slots]
    assert [slot.state for slot in slots] == [OPEN] * 3
    assert pool.reap(10.0) == first  # nobody has done it yet, so it is still to be done


def test_rule_4_years_pass_in_no_time() -> None:
    pool, (slot,) = full_pool(1, idle_timeout=0)
    assert pool.reap(1e9).evict == []
    pool.release(slot, 1e9)
    assert pool.stats().open_seconds == 1e9


def test_rule_5_a_slots_generation_changes_at_each_release() -> None:
    pool = pool_of(1)
    seen = []
    for _ in range(4):
        slot = slot_of(pool)
        seen.append(slot.generation)
        pool.release(slot, 1.0)
    assert seen == [0, 1, 2, 3]


def test_rule_5_the_next_client_has_another_generation_already_when_it_is_told() -> None:
    pool, (slot,) = full_pool(1)
    seen: list[int] = []
    wait(pool, Client(look=lambda: seen.append(slot.generation)))
    pool.release(slot, 1.0)
    assert seen == [1]


def test_rule_5_index_and_generation_do_not_repeat_when_a_pool_shrinks_and_grows() -> None:
    pool = pool_of(3)
    seen: list[tuple[int, int]] = []
    for now in range(20):
        held = [slot_of(pool) for _ in range(3)]
        seen += [(slot.index, slot.generation) for slot in held]
        pool.resize(1, float(now))
        for slot in held[now % 3 :] + held[: now % 3]:
            pool.release(slot, float(now))
        pool.resize(3, float(now))
    assert len(set(seen)) == len(seen) == 60


def test_rule_6_no_live_clients_slot_is_freed_to_admit_another() -> None:
    pool, slots = full_pool(2, acquire_timeout=1000, idle_timeout=500)
    clients = [Client() for _ in range(10)]
    for client in clients:
        wait(pool, client)
    for now in range(0, 500, 10):
        assert pool.reap(float(now)).evict == []
    assert [slot.state for slot in slots] == [OPEN, OPEN]
    assert [client.answers for client in clients] == [[]] * 10


def test_rule_7_wait_holds_the_request_until_a_slot_comes_free() -> None:
    pool, (slot,) = full_pool(1)
    client = Client()
    waiter = wait(pool, client, now=2.0)
    assert (waiter.since, waiter.deadline) == (2.0, 32.0)
    pool.release(slot, 20.0)
    assert client.slot is slot


def test_rule_7_wait_ends_at_the_acquire_timeout() -> None:
    pool, (slot,) = full_pool(1, acquire_timeout=30)
    early, late = Client(), Client()
    wait(pool, early, now=0.0)
    wait(pool, late, now=1.0)
    assert pool.reap(29.9).timed_out == 0
    assert pool.reap(30.0).timed_out == 1
    assert (early.answers, late.answers) == ([WaiterState.TIMED_OUT], [])
    pool.release(slot, 30.5)
    assert late.slot is slot
    assert (pool.stats().timed_out, pool.stats().granted, pool.stats().wait_seconds) == (1, 2, 29.5)


@pytest.mark.parametrize("on_full", ["retry", "reject"])
def test_rule_7_retry_and_reject_turn_away_at_once(on_full: str) -> None:
    pool, _ = full_pool(1, on_full=on_full)
    with pytest.raises(PoolFull, match=r"^no slot is free \(size=1 open=1 waiting=0\)$"):
        pool.acquire(0.0, Client())
    assert (pool.stats().refused, pool.stats().queued) == (1, 0)


def test_rule_7_beyond_max_waiting_a_request_is_turned_away_at_once() -> None:
    pool, _ = full_pool(2, max_waiting=1)
    wait(pool)
    with pytest.raises(PoolFull, match=r"^no slot is free \(size=2 open=2 waiting=1\)$"):
        pool.acquire(0.0, Client())


def test_rule_7_with_no_place_to_wait_a_full_pool_turns_away() -> None:
    pool, (slot,) = full_pool(1, max_waiting=0)
    with pytest.raises(PoolFull):
        pool.acquire(0.0, Client())
    pool.release(slot, 1.0)
    slot_of(pool)


def test_rule_7_a_waiter_knows_its_position() -> None:
    pool, (slot,) = full_pool(1)
    waiters = [wait(pool) for _ in range(4)]
    assert [pool.position(waiter) for waiter in waiters] == [1, 2, 3, 4]
    pool.leave(waiters[1])
    pool.release(slot, 1.0)
    assert [pool.position(waiter) for waiter in waiters] == [0, 0, 1, 2]


def test_rule_8_closing_fails_every_waiter_at_once() -> None:
    pool, slots = full_pool(2)
    clients = [Client() for _ in range(5)]
    waiters = [wait(pool, client) for client in clients]
    assert pool.close() == slots
    assert [client.answers for client in clients] == [[WaiterState.REFUSED]] * 5
    assert {waiter.state for waiter in waiters} == {WaiterState.REFUSED}
    assert (pool.stats().waiting, pool.stats().refused) == (0, 5)


def test_rule_8_draining_refuses_waiters_and_newcomers() -> None:
    pool, _ = full_pool(1)
    client = Client()
    wait(pool, client)
    pool.drain(0.0, 10.0)
    assert client.answers == [WaiterState.REFUSED]
    with pytest.raises(PoolClosed, match=r"^the pool is draining \(size=1 open=1 waiting=0\)$"):
        pool.acquire(0.0, Client())


def test_rule_8_draining_closes_clients_at_an_even_pace() -> None:
    pool, slots = full_pool(4)
    pool.drain(100.0, 10.0)
    left: dict[float, list[Slot]] = {}
    for tick in range(0, 24):
        now = 100.0 + tick / 2
        for slot, reason in pool.reap(now).evict:
            assert reason is Reason.DRAINED
            left.setdefault(now, []).append(slot)
            pool.closing(slot, reason, now)
            pool.release(slot, now)
    assert left == {100.0: [slots[0]], 102.5: [slots[1]], 105.0: [slots[2]], 107.5: [slots[3]]}
    assert pool.stats().released["drained"] == 4


# The pool's own states.


def test_a_new_pool_has_no_slots_and_takes_no_requests() -> None:
    pool = Pool(PoolConfig(size=3))
    assert (pool.state, pool.slots, pool.cells()) == (PoolState.NEW, [], "")
    with pytest.raises(PoolClosed, match=r"^the pool is new \(size=0 open=0 waiting=0\)$"):
        pool.acquire(0.0, Client())
    assert pool.stats().refused == pool.stats().requests == 1


def test_slots_are_made_when_the_pool_opens_and_stay_the_same_objects() -> None:
    pool = pool_of(3)
    made = list(pool.slots)
    assert [slot.index for slot in made] == [0, 1, 2]
    for _ in range(3):
        held = [stream_of(pool) for _ in range(3)]
        assert held == made  # the lowest index first
        for slot in reversed(held):
            pool.release(slot, 1.0)
    assert pool.slots == made


def test_a_pool_with_default_settings_opens() -> None:
    pool = Pool()
    pool.open()
    assert pool.stats().size == 1000


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (("open", "open"), r"^a pool that is open cannot become open \(size=2 open=0 waiting=0\)$"),
        (("drain",), r"^a pool that is new cannot become draining \(size=0 open=0 waiting=0\)$"),
        (("open", "drain", "drain"), "^a pool that is draining cannot become draining"),
        (("open", "drain", "open"), "^a pool that is draining cannot become open"),
        (("open", "close", "open"), "^a pool that is closed cannot become open"),
        (("close", "open"), "^a pool that is closed cannot become open"),
        (("open", "drain", "close", "drain"), "^a pool that is closed cannot become draining"),
    ],
)
def test_a_pool_goes_one_way(steps: tuple[str, ...], error: str) -> None:
    pool = Pool(PoolConfig(size=2))
    take: dict[str, Callable[[], Any]] = {"open": pool.open, "drain": lambda: pool.drain(0.0, 1.0), "close": pool.close}
    for step in steps[:-1]:
        take[step]()
    state = pool.state
    with pytest.raises(PoolClosed, match=error):
        take[steps[-1]]()
    assert pool.state is state


def test_closing_returns_the_slots_that_somebody_has_whatever_their_state() -> None:
    pool = pool_of(4)
    reserved, opened, closing = slot_of(pool), stream_of(pool), stream_of(pool)
    pool.closing(closing, Reason.KICKED, 0.0)
    assert pool.close() == [reserved, opened, closing]
    assert pool.close() == []


def test_a_closed_pool_lets_its_clients_finish_and_takes_no_others() -> None:
    pool = pool_of(2)
    reserved, opened = slot_of(pool), stream_of(pool)
    pool.close()
    pool.start(reserved, 1.0)
    pool.closing(opened, Reason.SHUTDOWN, 1.0)
    pool.release(opened, 2.0)
    pool.release(reserved, 2.0, Reason.SHUTDOWN)
    assert (pool.stats().free, pool.stats().released["shutdown"]) == (2, 2)
    with pytest.raises(PoolClosed, match=r"^the pool is closed"):
        pool.acquire(3.0, Client())


def test_a_pool_that_drains_can_close() -> None:
    pool, (slot,) = full_pool(1)
    pool.drain(0.0, 100.0)
    assert pool.close() == [slot]


# A slot's way round.


def test_a_slot_goes_round() -> None:
    pool = pool_of(1)
    assert pool.cells() == "f"
    slot = slot_of(pool)
    assert pool.cells() == "r"
    pool.start(slot, 0.0)
    assert pool.cells() == "o"
    pool.closing(slot, Reason.KICKED, 0.0)
    assert pool.cells() == "c"
    pool.release(slot, 0.0)
    assert pool.cells() == "f"


def test_a_client_that_leaves_before_its_stream_opens_frees_its_slot() -> None:
    pool = pool_of(1)
    slot = slot_of(pool)
    pool.release(slot, 3.0)
    stats = pool.stats()
    assert (slot.state, stats.released["client_closed"], stats.open_seconds) == (FREE, 1, 0.0)


STEPS: dict[str, Callable[[Pool, Slot], Any]] = {
    "start": lambda pool, slot: pool.start(slot, 1.0),
    "closing": lambda pool, slot: pool.closing(slot, Reason.KICKED, 1.0),
    "release": lambda pool, slot: pool.release(slot, 1.0),
}
LEGAL = {(RESERVED, "start"), (RESERVED, "release"), (OPEN, "closing"), (OPEN, "release"), (CLOSING, "release")}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", SlotState)
def test_a_step_that_the_table_has_not_raises_and_changes_nothing(state: SlotState, step: str) -> None:
    pool = pool_of(2, max_per_ip=2)
    slot = slot_of(pool, ip="::1")
    if state in (OPEN, CLOSING):
        pool.start(slot, 0.0)
    if state is CLOSING:
        pool.closing(slot, Reason.IDLE, 0.0)
    if state is FREE:
        pool.release(slot, 0.0)
    if (state, step) in LEGAL:
        STEPS[step](pool, slot)
        return

    def everything() -> Any:
        return (pool.stats(), pool.limits.taken(), {name: getattr(slot, name) for name in Slot.__slots__})

    before = everything()
    with pytest.raises(IllegalStep):
        STEPS[step](pool, slot)
    assert everything() == before


def test_the_first_reason_stays() -> None:
    pool = pool_of(1)
    slot = stream_of(pool)
    pool.closing(slot, Reason.LAGGED, 1.0)
    assert slot.reason is Reason.LAGGED
    pool.release(slot, 2.0, Reason.CLIENT_CLOSED)
    released = pool.stats().released
    assert (released["lagged"], released["client_closed"]) == (1, 0)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("told_before", [False, True])
def test_every_reason_is_counted_under_its_name(reason: Reason, told_before: bool) -> None:
    pool = pool_of(1)
    slot = stream_of(pool)
    if told_before:
        pool.closing(slot, reason, 1.0)
        pool.release(slot, 1.0)
    else:
        pool.release(slot, 1.0, reason)
    assert pool.stats().released == {each.value: int(each is reason) for each in Reason}


def test_a_released_slot_has_forgotten_its_client() -> None:
    pool = pool_of(1, max_per_ip=1, max_lifetime=10)
    slot = stream_of(pool, 5.0, ip="::1")
    slot.holder, slot.events, slot.bytes, slot.cursor = object(), 3, 300, 3
    pool.block(slot, 6.0)
    pool.release(slot, 7.0)
    fresh = Slot(0, generation=1)
    assert {name: getattr(slot, name) for name in Slot.__slots__} == {
        name: getattr(fresh, name) for name in Slot.__slots__
    }


# Limits.


def test_all_caps_are_checked_in_one_step_before_any_is_taken() -> None:
    pool = pool_of(10, max_per_ip=9, max_per_user=9, max_per_topic=1)
    stream_of(pool, ip="::1", user="ann", topics=["news"])
    before = pool.limits.taken()
    with pytest.raises(PoolFull, match=r"^max_per_topic=1 reached by topic 'news' \(size=10 open=1 waiting=0\)$"):
        pool.acquire(0.0, Client(), ip="::1", user="ann", topics=["sport", "news"])
    assert pool.limits.taken() == before
    stream_of(pool, ip="::1", user="ann", topics=["sport"])


@pytest.mark.parametrize(
    ("limit", "who", "message"),
    [
        ("max_per_ip", {"ip": "::1"}, "max_per_ip=2 reached by ip '::/64'"),
        ("max_per_user", {"user": "ann"}, "max_per_user=2 reached by user 'ann'"),
        ("max_per_topic", {"topics": ["news"]}, "max_per_topic=2 reached by topic 'news'"),
    ],
)
def test_each_limit_turns_away_although_slots_are_free(limit: str, who: dict[str, Any], message: str) -> None:
    pool = pool_of(5, **{limit: 2})
    first, _ = stream_of(pool, **who), stream_of(pool, **who)
    with pytest.raises(PoolFull, match=message):
        pool.acquire(0.0, Client(), **who)
    assert pool.stats().refused == 1
    stream_of(pool)
    pool.release(first, 1.0)
    stream_of(pool, **who)


def test_whether_a_limit_would_be_exceeded_is_told_without_asking_for_a_slot() -> None:
    pool = pool_of(5, max_per_ip=1, max_per_topic=1)
    stream_of(pool, ip="::1", topics=["news"])
    before = (pool.stats(), pool.limits.taken())
    assert pool.exceeds("::1", None, [])
    assert pool.exceeds(None, None, ["sport", "news"])
    assert not pool.exceeds("0:0:0:1::2", "ann", ["sport"])
    assert (pool.stats(), pool.limits.taken()) == before


def test_patterns_beyond_the_bound_are_refused_until_others_have_left() -> None:
    pool = pool_of(1, max_patterns=1)
    first = stream_of(pool, patterns=["a/*"])
    waiter = pool.acquire(0.0, Client(), patterns=["a/*"])
    assert isinstance(waiter, Waiter)
    pool.leave(waiter)
    with pytest.raises(PoolFull, match="max_patterns=1 does not allow 1 more than 1"):
        pool.acquire(0.0, Client(), patterns=["b/*"])
    assert pool.exceeds(None, None, [], ["b/*"])
    pool.release(first, 1.0)
    stream_of(pool, patterns=["b/*"])


@pytest.mark.parametrize(
    ("settings", "change", "who"),
    [
        ({}, lambda pool: pool.drain(0.0, 1.0), {}),
        ({}, lambda pool: pool.close(), {}),
        ({"max_per_user": 1}, lambda pool: stream_of(pool, user="ann"), {"user": "ann"}),
        ({"max_patterns": 0}, lambda pool: None, {"patterns": ["*"]}),
        ({"on_full": "reject"}, lambda pool: [stream_of(pool) for _ in range(2)], {}),
        ({"max_waiting": 0}, lambda pool: [stream_of(pool) for _ in range(2)], {}),
    ],
)
def test_whether_a_request_would_be_refused_is_told_without_asking(
    settings: dict[str, Any], change: Callable[[Pool], object], who: dict[str, Any]
) -> None:
    pool, asked = pool_of(2, **settings), {"ip": None, "user": None, "topics": [], **who}
    assert pool.refuses(**asked) is ("patterns" in who)
    change(pool)
    before = (pool.stats(), pool.limits.taken())
    assert pool.refuses(**asked)
    assert (pool.stats(), pool.limits.taken()) == before
    with pytest.raises((PoolClosed, PoolFull)):
        pool.acquire(0.0, Client(), **who)


def test_a_full_pool_in_which_one_may_wait_refuses_nobody() -> None:
    pool = pool_of(1)
    stream_of(pool)
    assert not pool.refuses(None, None, [])


def test_a_waiter_counts_towards_the_limits_until_it_ends() -> None:
    pool, (slot,) = full_pool(1, max_per_ip=1, acquire_timeout=5)
    leaver = wait(pool, ip="a")
    wait(pool, ip="b", now=1.0)
    for name in "ab":
        with pytest.raises(PoolFull, match=rf"^max_per_ip=1 reached by ip '{name}' \(size=1 open=1 waiting=2\)$"):
            pool.acquire(1.0, Client(), ip=name)
    pool.leave(leaver)
    assert pool.limits.taken() == {("ip", "b"): 1}
    pool.reap(6.0)
    assert pool.limits.taken() == {}
    wait(pool, ip="c", now=6.0)
    pool.release(slot, 7.0)
    assert pool.limits.taken() == {("ip", "c"): 1}
    pool.release(slot, 8.0)
    assert pool.limits.taken() == {}


def test_waiters_that_are_refused_give_their_limits_back() -> None:
    pool, _ = full_pool(1, max_per_user=1)
    wait(pool, user="ann")
    pool.close()
    assert pool.limits.taken() == {}


def test_a_limit_that_is_reached_does_not_hold_up_the_queue() -> None:
    pool = pool_of(2, max_per_ip=2)
    one, _ = stream_of(pool, ip="a"), stream_of(pool, ip="a")
    client = Client()
    wait(pool, client, ip="b")
    with pytest.raises(PoolFull):
        pool.acquire(0.0, Client(), ip="a")
    pool.release(one, 1.0)
    assert client.slot is one


# What the reaper finds.


def test_a_full_socket_buffer_is_send_timeout() -> None:
    pool, (slot,) = full_pool(1, send_timeout=20)
    pool.block(slot, 5.0)
    assert pool.reap(24.9).evict == []
    assert pool.reap(25.0).evict == [(slot, Reason.SEND_TIMEOUT)]


def test_a_buffer_with_room_again_is_no_send_timeout() -> None:
    pool, (slot,) = full_pool(1, send_timeout=20)
    pool.block(slot, 5.0)
    pool.unblock(slot)
    assert pool.reap(25.0).evict == []
    pool.block(slot, 30.0)
    assert pool.reap(49.9).evict == []
    assert pool.reap(50.0).evict == [(slot, Reason.SEND_TIMEOUT)]


def test_a_slot_that_is_looked_at_for_another_cause_is_judged_by_no_deadline_that_is_still_to_come() -> None:
    pool, (slot,) = full_pool(1, send_timeout=20, idle_timeout=10, max_lifetime=100)
    pool.block(slot, 5.0)
    slot.received_at = 8.0
    pool.drain(15.0, 0.0)
    for now in (0.0, 10.0, 14.9):
        slot.due = now
        assert pool.reap(now).evict == []


def test_nothing_delivered_and_nothing_received_is_idle() -> None:
    pool, (slot,) = full_pool(1, idle_timeout=60)
    assert pool.reap(59.9).evict == []
    assert pool.reap(60.0).evict == [(slot, Reason.IDLE)]


@pytest.mark.parametrize("attribute", ["received_at", "sent_at"])
def test_what_is_received_or_sent_puts_idle_off(attribute: str) -> None:
    pool, (slot,) = full_pool(1, idle_timeout=60)
    setattr(slot, attribute, 40.0)
    assert pool.reap(60.0).evict == []
    assert pool.reap(99.9).evict == []
    assert pool.reap(100.0).evict == [(slot, Reason.IDLE)]


@pytest.mark.parametrize("lacks", [0, 1])
def test_an_event_in_its_feed_puts_idle_off_for_a_client_at_the_head_and_for_one_whose_turn_is_still_to_come(
    lacks: int,
) -> None:
    pool, (slot,) = full_pool(1, idle_timeout=60)
    slot.feed = Feed(Subscription.of(["news"]))
    slot.feed.append(Entry(1, "1", ("news",), b"data: x\n\n"), 40.0)
    slot.cursor = slot.feed.head - lacks
    assert pool.reap(60.0).evict == []
    assert pool.reap(100.0).evict == [(slot, Reason.IDLE)]


def test_no_idle_timeout_is_never_idle() -> None:
    pool, _ = full_pool(1, idle_timeout=0)
    assert pool.reap(1e12).evict == []


def test_the_end_of_a_lifetime_is_lifetime_however_active_the_client_is() -> None:
    pool, (slot,) = full_pool(1, max_lifetime=100)
    slot.received_at = slot.sent_at = 99.0
    assert pool.reap(99.9).evict == []
    assert pool.reap(100.0).evict == [(slot, Reason.LIFETIME)]


@pytest.mark.parametrize(("jitter", "end"), [(0.0, 1000.0), (0.5, 975.0), (1.0, 950.0)])
def test_lifetimes_are_shortened_by_up_to_five_percent(jitter: float, end: float) -> None:
    pool = Pool(PoolConfig(size=1, max_lifetime=1000, idle_timeout=0), jitter=lambda: jitter)
    pool.open()
    assert stream_of(pool).expires_at == end


def test_no_lifetime_is_no_end() -> None:
    assert stream_of(pool_of(1)).expires_at == NEVER


def test_a_reserved_slot_that_nobody_opens_or_releases_is_error() -> None:
    pool = pool_of(1, send_timeout=20)
    slot = slot_of(pool, 5.0)
    assert pool.reap(24.9).evict == []
    assert pool.reap(25.0).evict == [(slot, Reason.ERROR)]


def test_a_stream_that_opened_in_time_is_not_judged_by_its_reservation() -> None:
    pool = pool_of(1, send_timeout=20)
    slot = slot_of(pool, 5.0)
    pool.start(slot, 24.0)
    assert pool.reap(25.0).evict == []


def test_a_goodbye_that_takes_too_long_is_overdue() -> None:
    pool, (slot,) = full_pool(1, send_timeout=20)
    pool.closing(slot, Reason.KICKED, 5.0)
    assert pool.reap(24.9).overdue == []
    reaped = pool.reap(25.0)
    assert (reaped.evict, reaped.overdue) == ([], [slot])
    assert slot.reason is Reason.KICKED


def test_a_closing_slot_is_judged_by_nothing_else() -> None:
    pool, (slot,) = full_pool(1, send_timeout=20, idle_timeout=10, max_lifetime=10)
    pool.block(slot, 0.0)
    pool.closing(slot, Reason.KICKED, 9.0)
    pool.drain(9.0, 0.0)
    assert pool.reap(20.0).evict == []


def test_a_free_slot_is_judged_by_nothing() -> None:
    pool, (slot,) = full_pool(1, send_timeout=1, idle_timeout=1, max_lifetime=1)
    pool.release(slot, 0.5)
    reaped = pool.reap(1e9)
    assert (reaped.evict, reaped.overdue, reaped.timed_out) == ([], [], 0)


@pytest.mark.parametrize(
    ("wrongs", "reason"),
    [
        ("blocked draining expired idle", Reason.SEND_TIMEOUT),
        ("draining expired idle", Reason.DRAINED),
        ("expired idle", Reason.LIFETIME),
        ("idle", Reason.IDLE),
    ],
)
def test_of_several_reasons_the_one_that_says_most_counts(wrongs: str, reason: Reason) -> None:
    pool, (slot,) = full_pool(1, send_timeout=10, idle_timeout=10, max_lifetime=10 if "expired" in wrongs else 0)
    if "blocked" in wrongs:
        pool.block(slot, 0.0)
    if "draining" in wrongs:
        pool.drain(10.0, 0.0)
    assert pool.reap(10.0).evict == [(slot, reason)]


def test_the_reaper_looks_closely_only_at_slots_where_something_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, slots = full_pool(100, idle_timeout=1000, send_timeout=20)
    looked: list[Slot] = []
    verdict = Pool._verdict
    monkeypatch.setattr(Pool, "_verdict", lambda self, slot, now: looked.append(slot) or verdict(self, slot, now))
    for now in range(0, 900, 100):
        pool.reap(float(now))
    assert looked == []
    pool.block(slots[7], 900.0)
    pool.unblock(slots[7])
    pool.reap(919.0)
    assert looked == []
    pool.reap(920.0)
    pool.reap(921.0)
    assert looked == [slots[7]]  # once: then it is due again when it is idle


def test_waiters_time_out_in_their_order_and_before_anybody_is_granted_their_place() -> None:
    pool, _ = full_pool(1, acquire_timeout=10)
    told: list[int] = []
    for number in range(4):
        wait(pool, Client(look=lambda number=number: told.append(number)), now=float(number))
    assert pool.reap(12.0).timed_out == 3
    assert told == [0, 1, 2]
    assert pool.stats().waiting == 1


# Resizing.


def test_new_slots_go_to_the_waiters_at_once_and_in_order() -> None:
    pool, held = full_pool(2)
    clients = [Client() for _ in range(4)]
    for client in clients:
        wait(pool, client)
    pool.resize(5, 3.0)
    assert [client.slot.index if client.slot else None for client in clients] == [2, 3, 4, None]
    assert pool.cells() == "oorrr"
    assert [slot.state for slot in held] == [OPEN, OPEN]
    assert pool.stats().wait_seconds == 9.0


def test_new_slots_that_nobody_waits_for_are_free() -> None:
    pool, _ = full_pool(1)
    pool.resize(3, 0.0)
    assert pool.cells() == "off"
    assert slot_of(pool).index == 1


def test_a_new_slot_that_meets_only_waiters_who_have_just_left_stays_free() -> None:
    pool, _ = full_pool(1)
    wait(pool, Client(here=False))
    pool.resize(2, 0.0)
    assert (pool.cells(), pool.stats().waiting) == ("of", 0)


def test_shrinking_takes_free_slots_first_and_of_these_the_highest() -> None:
    pool = pool_of(6)
    held = [stream_of(pool) for _ in range(4)]
    pool.release(held[1], 0.0)  # 0, 2 and 3 are held; 1, 4 and 5 are free
    pool.resize(4, 0.0)
    assert [slot.index for slot in pool.slots] == [0, 1, 2, 3]
    assert pool.cells() == "ofoo"


def test_shrinking_sends_nobody_away_but_takes_slots_as_clients_leave() -> None:
    pool, slots = full_pool(4)
    pool.resize(2, 0.0)
    assert (pool.stats().size, pool.cells()) == (4, "oooo")
    pool.release(slots[1], 1.0)
    pool.release(slots[2], 1.0)
    assert (pool.stats().size, pool.cells()) == (2, "oo")
    pool.release(slots[0], 1.0)
    assert (pool.stats().size, pool.cells()) == (2, "fo")


def test_while_a_pool_shrinks_neither_waiters_nor_newcomers_get_a_slot() -> None:
    pool, slots = full_pool(3)
    client = Client()
    wait(pool, client)
    pool.resize(1, 0.0)
    pool.release(slots[0], 1.0)
    pool.release(slots[1], 1.0)
    assert client.slot is None
    wait(pool)
    pool.release(slots[2], 1.0)
    assert client.slot is slots[2]


def test_growing_again_before_all_have_left_takes_the_surplus_back() -> None:
    pool, slots = full_pool(4)
    client = Client()
    wait(pool, client)
    pool.resize(1, 0.0)
    pool.release(slots[3], 0.0)
    pool.resize(4, 1.0)
    assert client.slot is not None
    assert client.slot.index == 3  # the gap is filled
    assert client.slot is not slots[3]
    assert pool.cells() == "ooor"


def test_growing_fills_gaps_and_keeps_the_slots_in_the_order_of_their_index() -> None:
    pool, slots = full_pool(5)
    pool.resize(2, 0.0)
    for index in (0, 2, 3):
        pool.release(slots[index], 0.0)
    assert [slot.index for slot in pool.slots] == [1, 4]
    pool.resize(6, 0.0)
    assert [slot.index for slot in pool.slots] == [0, 1, 2, 3, 4, 5]
    assert pool.cells() == "foffof"
    assert [slot_of(pool).index for _ in range(4)] == [0, 2, 3, 5]


def test_a_slot_that_was_taken_out_is_handed_out_no_more() -> None:
    pool = pool_of(5)
    pool.resize(2, 0.0)
    assert {slot_of(pool), slot_of(pool)} == set(pool.slots)
    wait(pool)


def test_slots_that_stay_are_the_same_objects() -> None:
    pool = pool_of(6)
    slots = list(pool.slots)
    stream_of(pool)
    for size in (6, 4, 3, 3, 5):
        pool.resize(size, 0.0)
        assert pool.slots[:3] == slots[:3]


def test_the_same_size_changes_nothing() -> None:
    pool, slots = full_pool(2)
    before = pool.stats()
    pool.resize(2, 0.0)
    assert (pool.stats(), pool.slots) == (before, slots)


@pytest.mark.parametrize("size", [0, -1, 1_000_001, True, 2.0, "3", None])
def test_a_size_that_the_settings_would_refuse_is_refused(size: Any) -> None:
    pool = pool_of(2)
    with pytest.raises(ConfigError, match=r"^PoolConfig\.size = .* is not allowed; it takes a"):
        pool.resize(size, 0.0)
    assert pool.stats().size == 2


def test_a_pool_comes_to_its_size_in_steps_each_of_which_keeps_the_rules() -> None:
    pool, held = full_pool(3)
    clients = [Client() for _ in range(5)]
    for client in clients:
        wait(pool, client)
    pool.aim(20)
    sizes = []
    while pool.approach(0.0, 2):
        sizes.append(pool.stats().size)
    assert sizes == [5, 7, 9, 11, 13, 15, 17, 19, 20]
    assert [client.slot.index for client in clients if client.slot] == [3, 4, 5, 6, 7]
    pool.release(held[0], 0.0)
    pool.aim(7)
    sizes = []
    while pool.approach(0.0, 5):
        sizes.append(pool.stats().size)
        assert [slot.index for slot in pool.slots] == sorted(slot.index for slot in pool.slots)
    assert sizes == [15, 10, 7]  # the lowest place is free, so it goes at last
    assert [slot.index for slot in pool.slots] == list(range(1, 8))
    pool.aim(9)
    assert [pool.approach(0.0, 2), pool.approach(0.0, 2)] == [True, False]
    assert [slot.index for slot in pool.slots] == list(range(9))


@pytest.mark.parametrize("state", ["new", "draining", "closed"])
def test_only_an_open_pool_is_resized(state: str) -> None:
    pool = Pool(PoolConfig(size=2))
    if state != "new":
        pool.open()
        pool.drain(0.0, 1.0)
    if state == "closed":
        pool.close()
    with pytest.raises(PoolClosed, match=rf"^a pool that is {state} cannot be resized \(size=\d open=0 waiting=0\)$"):
        pool.resize(3, 0.0)


def test_resizing_a_big_pool_takes_no_quadratic_time() -> None:
    pool = pool_of(100_000)
    for _ in range(50_000):
        slot_of(pool)
    began = time.process_time()
    pool.resize(1, 0.0)
    pool.resize(100_000, 0.0)
    assert pool.stats().size == 100_000
    # It takes a third of a second; looking each slot up in the whole list takes minutes.
    assert time.process_time() - began < 10


# Draining.


def test_a_drain_in_no_time_closes_all_at_the_next_look() -> None:
    pool, slots = full_pool(3)
    pool.drain(5.0, 0.0)
    assert pool.reap(5.0).evict == [(slot, Reason.DRAINED) for slot in slots]


def test_a_slot_that_was_reserved_when_the_drain_began_gets_its_turn_in_it() -> None:
    pool = pool_of(2, send_timeout=100)
    first, late = stream_of(pool), slot_of(pool)
    pool.drain(10.0, 8.0)
    pool.start(late, 11.0)
    assert pool.reap(11.0).evict == [(first, Reason.DRAINED)]
    pool.release(first, 11.0)
    assert pool.reap(13.9).evict == []
    assert pool.reap(14.0).evict == [(late, Reason.DRAINED)]


def test_who_is_leaving_already_takes_no_turn_in_a_drain() -> None:
    pool, slots = full_pool(3)
    pool.closing(slots[0], Reason.KICKED, 0.0)
    pool.drain(0.0, 10.0)
    assert [slot.drain_at for slot in slots] == [NEVER, 0.0, 5.0]


def test_clients_that_leave_by_themselves_during_a_drain_keep_their_reason() -> None:
    pool, slots = full_pool(2)
    pool.drain(0.0, 10.0)
    pool.release(slots[1], 1.0)
    assert pool.stats().released["client_closed"] == 1
    assert pool.cells() == "of"


def test_an_empty_pool_drains() -> None:
    pool = pool_of(2)
    pool.drain(0.0, 10.0)
    assert (pool.stats().state, pool.reap(20.0).evict) == ("draining", [])


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_a_drain_takes_a_number_of_seconds(seconds: float) -> None:
    pool = pool_of(1)
    with pytest.raises(ConfigError, match=rf"^a drain takes {seconds!r} seconds; it takes a number, at least 0$"):
        pool.drain(0.0, seconds)
    assert pool.state is PoolState.OPEN


# Heartbeats.


def beats(pool: Pool, now: float, *, answer: bool = True) -> list[Slot]:
    """One call, and what the runtime does then: write a heartbeat."""
    slots = pool.beat(now)
    if answer:
        for slot in slots:
            slot.bytes += 13
    return slots


def test_heartbeats_are_spread_so_that_a_big_pool_sends_no_burst() -> None:
    pool, slots = full_pool(1500, heartbeat_interval=15)
    assert beats(pool, 0.0) == []
    for now in range(1, 61):
        assert len(beats(pool, float(now))) in (0, 50, 100, 150, 200)
    assert {slot.bytes for slot in slots} == {13 * 4}


def test_a_quiet_client_gets_one_heartbeat_an_interval() -> None:
    pool, slots = full_pool(8, heartbeat_interval=16)
    told: dict[int, list[int]] = {slot.index: [] for slot in slots}
    for now in range(0, 101):
        for slot in beats(pool, float(now)):
            told[slot.index].append(now)
    for times in told.values():
        assert times == list(range(times[0], 101, 16))
        assert times[0] <= 16


def test_a_busy_client_gets_no_heartbeat() -> None:
    pool, (busy, quiet) = full_pool(2, heartbeat_interval=10)
    told: list[Slot] = []
    for now in range(0, 100):
        if now % 4 == 0:
            busy.bytes += 100
        told += beats(pool, float(now))
    assert set(told) == {quiet}


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sets(st.integers(0, 4))), min_size=20, max_size=120))
def test_no_stream_is_silent_for_longer_than_the_interval(steps: list[tuple[float, set[int]]]) -> None:
    # At any time, between any two looks, anything may be written to anybody. Looks are at most a second apart.
    pool, slots = full_pool(5, heartbeat_interval=8)
    last = dict.fromkeys(range(5), 0.0)
    now = 0.0
    beats(pool, now)
    for passed, written in steps:
        for index in written:
            slots[index].bytes += 50
            last[index] = now
        now += passed
        for slot in beats(pool, now):
            last[slot.index] = now
        assert all(now - since <= 8 + 1 for since in last.values())


def test_after_a_pause_nobody_gets_two_heartbeats_at_once() -> None:
    pool, _ = full_pool(10, heartbeat_interval=10)
    beats(pool, 0.0)
    told = beats(pool, 1000.0)
    assert len(set(told)) == len(told) == 10


def test_only_open_slots_get_heartbeats() -> None:
    pool = pool_of(4, heartbeat_interval=10)
    slot_of(pool)
    stream_of(pool)
    pool.closing(stream_of(pool), Reason.KICKED, 0.0)
    beats(pool, 0.0)
    assert [slot.index for slot in beats(pool, 5.0)] == [1]


def test_a_new_client_of_a_slot_does_not_inherit_the_turns_of_the_one_before() -> None:
    pool, (slot,) = full_pool(1, heartbeat_interval=10)
    slot.bytes = 500
    beats(pool, 0.0)
    beats(pool, 5.0)
    pool.release(slot, 6.0)
    assert stream_of(pool, 6.0) is slot
    slot.bytes = 500  # as much as the one before, but just now
    assert beats(pool, 10.0) == []
    assert beats(pool, 15.0) == [slot]


def test_heartbeats_go_on_while_the_pool_changes_its_size() -> None:
    pool, slots = full_pool(10, heartbeat_interval=10)
    beats(pool, 0.0)
    beats(pool, 4.9)
    pool.resize(2, 5.0)
    for slot in slots[2:]:
        pool.release(slot, 5.0)
    told: list[Slot] = []
    for now in range(5, 30):
        told += beats(pool, float(now))
    assert Counter(told).keys() == set(slots[:2])
    pool.resize(20, 30.0)
    for now in range(30, 60):
        assert set(beats(pool, float(now))) <= set(slots[:2])


def test_a_pool_that_is_not_open_has_no_heartbeats_to_send() -> None:
    pool = Pool(PoolConfig(size=2))
    assert (pool.beat(0.0), pool.beat(100.0)) == ([], [])


# What it says of itself.


def test_stats_tell_the_whole_story() -> None:
    pool = pool_of(3, max_waiting=2, acquire_timeout=10, max_per_ip=3)
    kicked, left, reserved = stream_of(pool, 0.0), stream_of(pool, 1.0), slot_of(pool, 1.0)
    granted, timed_out = wait(pool, now=2.0), wait(pool, now=2.0)
    with pytest.raises(PoolFull):
        pool.acquire(2.0, Client())
    pool.release(left, 4.0)
    assert granted.state is WaiterState.GRANTED
    gone = wait(pool, now=5.0)
    pool.leave(gone)
    pool.reap(12.0)
    assert timed_out.state is WaiterState.TIMED_OUT
    wait(pool, now=13.0)
    pool.closing(kicked, Reason.KICKED, 15.0)
    assert dataclasses.asdict(pool.stats()) == {
        "state": "open",
        "size": 3,
        "free": 0,
        "reserved": 2,
        "open": 0,
        "closing": 1,
        "waiting": 1,
        "max_waiting": 2,
        "requests": 8,
        "queued": 4,
        "granted": 4,
        "timed_out": 1,
        "cancelled": 1,
        "refused": 1,
        "wait_seconds": 2.0,
        "open_seconds": 3.0,
        "released": {reason.value: int(reason is Reason.CLIENT_CLOSED) for reason in Reason},
    }
    pool.release(kicked, 16.0)
    pool.release(reserved, 16.0)
    assert (pool.stats().open_seconds, pool.stats().wait_seconds) == (19.0, 5.0)


def test_stats_are_frozen_and_of_their_moment() -> None:
    pool = pool_of(1)
    before = pool.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.free = 9  # type: ignore[misc]
    pool.release(slot_of(pool), 1.0)
    assert (before.requests, before.released["client_closed"]) == (0, 0)
    assert (pool.stats().requests, pool.stats().released["client_closed"]) == (1, 1)


def test_cells_show_one_letter_a_slot_by_index() -> None:
    pool = pool_of(4)
    slot_of(pool)
    stream_of(pool)
    pool.closing(stream_of(pool), Reason.IDLE, 0.0)
    assert pool.cells() == "rocf"


def test_a_slot_is_found_by_its_index() -> None:
    pool, slots = full_pool(4)
    pool.resize(2, 0.0)
    pool.release(slots[0], 0.0)
    pool.release(slots[2], 0.0)
    assert [pool.slot(index) for index in range(-1, 6)] == [None, None, slots[1], None, slots[3], None, None]


def test_a_pool_shows_its_numbers() -> None:
    pool = pool_of(4)
    assert repr(pool) == "<Pool open size=4 open=0 waiting=0>"
    slot_of(pool)
    stream_of(pool)
    pool.closing(stream_of(pool), Reason.IDLE, 0.0)
    assert repr(pool) == "<Pool open size=4 open=1 reserved=1 closing=1 waiting=0>"


# Grants that run out.


def term(ends_at: float, reason: Reason = Reason.TOKEN_EXPIRED, warns_at: float = NEVER) -> Term:
    return Term(ends_at, reason, warns_at, ends_at + 1.0)


@pytest.mark.parametrize("reason", [Reason.TOKEN_EXPIRED, Reason.LIFETIME])
def test_a_stream_ends_with_its_term_for_the_reason_of_that(reason: Reason) -> None:
    pool = pool_of(1, idle_timeout=0)
    slot = slot_of(pool)
    pool.start(slot, 0.0, term(100.0, reason))
    assert pool.reap(99.9).evict == []
    assert pool.reap(100.0).evict == [(slot, reason)]


def test_of_a_term_and_the_longest_lifetime_the_earlier_counts() -> None:
    pool = pool_of(2, idle_timeout=0, max_lifetime=50)
    early, late = slot_of(pool), slot_of(pool)
    pool.start(early, 0.0, term(20.0))
    pool.start(late, 0.0, term(80.0))
    assert pool.reap(20.0).evict == [(early, Reason.TOKEN_EXPIRED)]
    pool.closing(early, Reason.TOKEN_EXPIRED, 20.0)
    pool.release(early, 20.0)
    assert pool.reap(50.0).evict == [(late, Reason.LIFETIME)]


def test_a_client_is_warned_once_and_told_how_long_it_has() -> None:
    pool = pool_of(1, idle_timeout=0)
    slot = slot_of(pool)
    pool.start(slot, 0.0, term(100.0, warns_at=90.0))
    assert pool.reap(89.9).warn == []
    assert pool.reap(90.5).warn == [(slot, 10)]
    assert pool.reap(91.0).warn == []
    assert pool.reap(100.0).evict == [(slot, Reason.TOKEN_EXPIRED)]


def test_the_next_client_of_a_slot_has_a_term_of_its_own() -> None:
    pool = pool_of(1, idle_timeout=0)
    slot = slot_of(pool)
    pool.start(slot, 0.0, term(100.0, warns_at=90.0))
    pool.release(slot, 1.0)
    assert slot_of(pool, 2.0) is slot
    pool.start(slot, 2.0)
    reaped = pool.reap(1000.0)
    assert (reaped.evict, reaped.warn) == ([], [])


def test_a_waiter_whose_grant_has_run_out_gets_no_slot_and_holds_up_nobody() -> None:
    pool, [slot] = full_pool(1)
    gone, next = Client(), Client()
    wait(pool, gone, 0.0, ends_at=5.0)
    wait(pool, next, 0.0, ends_at=50.0)
    pool.release(slot, 5.0)
    assert gone.answers == [WaiterState.REFUSED]
    assert next.slot is slot
    assert (pool.stats().refused, pool.stats().granted, pool.stats().waiting) == (1, 2, 0)


def test_a_waiter_whose_grant_runs_out_is_found_and_told() -> None:
    pool, _ = full_pool(1)
    client, other = Client(), Client()
    waiter = wait(pool, client, 0.0, ends_at=5.0)
    wait(pool, other, 0.0)
    assert pool.run_out(4.9) == []
    assert pool.run_out(5.0) == [waiter]
    pool.refuse(waiter)
    pool.refuse(waiter)  # the second time does nothing
    assert (client.answers, other.answers) == ([WaiterState.REFUSED], [])
    assert len(pool.waiting) == 1
