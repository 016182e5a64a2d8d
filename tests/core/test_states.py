"""The state tables are the design's, step for step, and nothing else is a step."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from ssepool.core.states import (
    LINK_STEPS,
    POOL_STEPS,
    SLOT_STEPS,
    WAITER_STEPS,
    IllegalStep,
    LinkState,
    PoolState,
    Reason,
    SlotState,
    WaiterState,
    check_step,
)

# As the design has them, written down a second time.
SLOT = "FREE>RESERVED RESERVED>OPEN RESERVED>FREE OPEN>CLOSING CLOSING>FREE"
POOL = "NEW>OPEN NEW>CLOSED OPEN>DRAINING OPEN>CLOSED DRAINING>CLOSED"
REASONS = (
    "client_closed peer_dead send_timeout idle lifetime lagged token_expired revoked kicked drained shutdown error"
)
WAITER = "WAITING>GRANTED WAITING>TIMED_OUT WAITING>CANCELLED WAITING>REFUSED"
LINK = """
    NEW>OPEN NEW>ENDED OPEN>FOLLOWING OPEN>FINISHING OPEN>ENDING OPEN>ENDED FOLLOWING>OPEN FOLLOWING>FINISHING
    FOLLOWING>ENDING FOLLOWING>ENDED FINISHING>ENDING FINISHING>ENDED ENDING>ENDED
"""

TABLES: list[tuple[dict[Any, frozenset[Any]], type[Enum], str]] = [
    (SLOT_STEPS, SlotState, SLOT),
    (POOL_STEPS, PoolState, POOL),
    (WAITER_STEPS, WaiterState, WAITER),
    (LINK_STEPS, LinkState, LINK),
]

EVERY_PAIR = [
    pytest.param(
        steps, old, new, f"{old.name}>{new.name}" in legal.split(), id=f"{states.__name__}-{old.name}-{new.name}"
    )
    for steps, states, legal in TABLES
    for old in states
    for new in states
]


@pytest.mark.parametrize(("steps", "old", "new", "legal"), EVERY_PAIR)
def test_a_step_is_taken_or_refused_as_the_design_says(steps: Any, old: Any, new: Any, legal: bool) -> None:
    if legal:
        assert check_step(steps, old, new) is new
    else:
        with pytest.raises(IllegalStep, match=f"{type(old).__name__} {old.name} leads to .*, not to {new.name}"):
            check_step(steps, old, new)


@pytest.mark.parametrize(("steps", "states"), [(steps, states) for steps, states, _ in TABLES])
def test_every_state_has_its_line(steps: dict[Any, frozenset[Any]], states: type[Enum]) -> None:
    assert set(steps) == set(states)


def test_a_refused_step_says_what_would_be_allowed() -> None:
    with pytest.raises(IllegalStep, match=r"^SlotState RESERVED leads to FREE, OPEN, not to CLOSING$"):
        check_step(SLOT_STEPS, SlotState.RESERVED, SlotState.CLOSING)
    with pytest.raises(IllegalStep, match=r"^WaiterState GRANTED leads to nothing, not to CANCELLED$"):
        check_step(WAITER_STEPS, WaiterState.GRANTED, WaiterState.CANCELLED)


def test_the_reasons_are_those_of_the_design() -> None:
    assert {reason.value for reason in Reason} == {*REASONS.split(), "completed"}


def test_the_letters_of_the_slot_states_differ() -> None:
    assert sorted(state.value[0] for state in SlotState) == ["c", "f", "o", "r"]


def test_a_stream_ends_cleanly_where_it_is_over_and_is_cut_everywhere_else() -> None:
    assert {reason for reason in Reason if reason.is_final} == {Reason.COMPLETED, Reason.KICKED, Reason.REVOKED}
