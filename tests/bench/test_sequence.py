"""What was lost, doubled and reordered, against a model that remembers each number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.bench import sequence as module
from ssepool.bench.sequence import Sequence

Ranges = list[tuple[int, int]]


def ranges(most: int = 60) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, most), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def taken(*parts: tuple[int, int]) -> Sequence:
    sequence = Sequence()
    for first, after in parts:
        sequence.take(first, after)
    return sequence


def found(sequence: Sequence, sent: int) -> tuple[int, int, int]:
    return sequence.lost(sent), sequence.doubled, sequence.reordered


@pytest.mark.parametrize(
    ("parts", "sent", "expected"),
    [
        ([], 0, (0, 0, 0)),
        ([], 3, (3, 0, 0)),
        ([(0, 3)], 3, (0, 0, 0)),
        ([(0, 2)], 3, (1, 0, 0)),
        ([(0, 1), (2, 3)], 3, (1, 0, 0)),
        ([(0, 1), (0, 1)], 1, (0, 1, 0)),
        ([(1, 2), (0, 1)], 2, (0, 0, 1)),
        ([(1, 2), (0, 1), (0, 1)], 2, (0, 1, 1)),
        ([(5, 8), (1, 3)], 8, (3, 0, 2)),
        ([(5, 8), (1, 6)], 8, (1, 1, 4)),
        ([(0, 3), (1, 6)], 6, (0, 2, 0)),
        ([(2, 3), (5, 6), (0, 8)], 8, (0, 2, 4)),
    ],
)
def test_what_became_of_the_numbers(parts: Ranges, sent: int, expected: tuple[int, int, int]) -> None:
    assert found(taken(*parts), sent) == expected


def test_it_may_begin_elsewhere() -> None:
    sequence = Sequence(10)
    sequence.take(10, 12)
    assert (sequence.lost(15), sequence.expected) == (3, 12)


@given(st.lists(ranges()), st.integers(0, 20))
def test_it_counts_as_one_who_remembers_each_number(parts: Ranges, more: int) -> None:
    seen: set[int] = set()
    doubled = reordered = 0
    for first, after in parts:
        for number in range(first, after):
            doubled += number in seen
            reordered += number not in seen and bool(seen) and number < max(seen)
            seen.add(number)
    sent = max(seen, default=-1) + 1 + more
    sequence = taken(*parts)
    assert found(sequence, sent) == (sent - len(seen), doubled, reordered)
    assert sequence.missing == sequence.expected - len(seen)


@given(st.lists(ranges()))
def test_what_it_returns_is_how_far_it_moved(parts: Ranges) -> None:
    sequence = Sequence()
    assert sum(sequence.take(first, after) for first, after in parts) == sequence.expected


@given(st.lists(ranges()), st.sets(st.integers(0, 80)))
def test_numbers_that_were_never_to_come_are_not_lost(parts: Ranges, void: set[int]) -> None:
    seen = {number for first, after in parts for number in range(first, after)}
    as_ranges = [(number, number + 1) for number in sorted(void)]
    sent = 100
    assert taken(*parts).lost(sent, as_ranges) == len(set(range(sent)) - seen - void)


def test_beyond_so_many_gaps_the_oldest_stays_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GAPS", 2)
    sequence = taken((1, 2), (3, 4), (5, 6), (0, 1), (2, 3))
    assert found(sequence, 6) == (2, 1, 1)
