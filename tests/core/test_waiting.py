"""The waiting queue keeps the order of arrival, and its waiters end once."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.core.slot import Slot
from ssepool.core.states import IllegalStep, WaiterState
from ssepool.core.waiting import Waiter, WaitingQueue


class Nobody:
    def granted(self, slot: Slot) -> bool:
        raise AssertionError("the queue calls nobody")

    def failed(self, outcome: WaiterState) -> None:
        raise AssertionError("the queue calls nobody")


def waiter(since: float = 0.0) -> Waiter:
    return Waiter(Nobody(), (), since, since + 30.0)


def test_a_queue_is_in_the_order_of_joining() -> None:
    queue, waiters = WaitingQueue(), [waiter() for _ in range(5)]
    for each in waiters:
        queue.join(each)
    assert list(queue) == waiters
    assert len(queue) == 5
    assert queue.first() is waiters[0]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_waiter_leaves_from_any_place_and_the_others_keep_their_order(place: int) -> None:
    queue, waiters = WaitingQueue(), [waiter() for _ in range(5)]
    for each in waiters:
        queue.join(each)
    gone = waiters.pop(place)
    queue.leave(gone)
    assert list(queue) == waiters
    assert gone not in queue
    assert waiters[0] in queue


def test_an_empty_queue_is_false_and_has_no_first() -> None:
    queue = WaitingQueue()
    assert not queue
    with pytest.raises(StopIteration):
        queue.first()


def test_who_is_not_in_the_queue_cannot_leave_it() -> None:
    with pytest.raises(KeyError):
        WaitingQueue().leave(waiter())


@given(st.lists(st.integers(0, 9)))
def test_a_queue_is_a_list_from_which_anybody_may_leave(steps: list[int]) -> None:
    queue, model = WaitingQueue(), list[Waiter]()
    for step in steps:
        if step < 6:
            model.append(waiter())
            queue.join(model[-1])
        elif model:
            queue.leave(model.pop(step * 7 % len(model)))
        assert list(queue) == model
        assert not model or queue.first() is model[0]


def test_the_first_is_found_at_once_however_many_have_left_from_the_front() -> None:
    queue = WaitingQueue()
    for _ in range(200_000):
        queue.join(waiter())
    began = time.process_time()
    while queue:
        queue.leave(queue.first())
    # It takes a tenth of a second; walking over the places of those that left, as in a plain dict, takes far longer.
    assert time.process_time() - began < 10


@pytest.mark.parametrize("outcome", [state for state in WaiterState if state is not WaiterState.WAITING])
def test_a_waiter_ends_exactly_once(outcome: WaiterState) -> None:
    each = waiter()
    each.end(outcome)
    assert each.state is outcome
    for again in WaiterState:
        with pytest.raises(IllegalStep):
            each.end(again)
    assert each.state is outcome


def test_a_waiter_shows_itself() -> None:
    assert repr(waiter(since=1.5)) == "<Waiter waiting since=1.500>"
