"""The histogram against a sorted list."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.bench.histogram import BUCKET_BITS, EXACT_BELOW, MAX_VALUE, Histogram, bucket, greatest_of

values = st.one_of(
    st.integers(0, MAX_VALUE), st.integers(0, 5000), st.integers(0, 45).map(lambda power: min(2**power, MAX_VALUE))
)


def of(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


def test_without_numbers_there_is_nothing() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.at(0.5), histogram.at(1), histogram.mean, histogram.greatest) == (0, 0, 0, 0, 0)
    assert list(histogram.buckets()) == []


def test_small_numbers_are_exact() -> None:
    histogram = of(list(range(EXACT_BELOW)))
    assert [histogram.at((number + 1) / EXACT_BELOW) for number in range(EXACT_BELOW)] == list(range(EXACT_BELOW))


@given(values)
def test_a_number_is_in_a_bucket_that_is_hardly_greater(value: int) -> None:
    greatest = greatest_of(bucket(value))
    assert value <= greatest <= value + (value >> BUCKET_BITS)
    assert bucket(greatest) == bucket(value)
    assert bucket(greatest + 1) == bucket(value) + 1


@given(st.lists(values, min_size=1), st.floats(0, 1))
def test_what_is_read_off_is_that_of_the_sorted_numbers_or_hardly_more(numbers: list[int], share: float) -> None:
    exact = sorted(numbers)[max(1, math.ceil(share * len(numbers))) - 1]
    assert exact <= of(numbers).at(share) <= exact + (exact >> BUCKET_BITS)


@given(st.lists(values, min_size=1))
def test_count_mean_and_greatest_are_exact(numbers: list[int]) -> None:
    histogram = of(numbers)
    assert (histogram.count, histogram.greatest, histogram.at(1)) == (len(numbers), max(numbers), max(numbers))
    assert histogram.mean == sum(numbers) / len(numbers)


@given(st.lists(st.tuples(values, st.integers(1, 9))))
def test_counting_several_at_once_is_the_same_as_one_by_one(pairs: list[tuple[int, int]]) -> None:
    at_once = Histogram()
    for value, count in pairs:
        at_once.record(value, count)
    one_by_one = of([value for value, count in pairs for _ in range(count)])
    assert list(at_once.buckets()) == list(one_by_one.buckets())
    assert (at_once.count, at_once.total) == (one_by_one.count, one_by_one.total)


@given(st.lists(values))
def test_the_buckets_hold_all_in_order(numbers: list[int]) -> None:
    buckets = list(of(numbers).buckets())
    assert sum(count for _, count in buckets) == len(numbers)
    assert buckets == sorted(buckets)


@pytest.mark.parametrize(("value", "counted"), [(-1, 0), (MAX_VALUE + 1, MAX_VALUE), (10**30, MAX_VALUE)])
def test_what_is_out_of_range_counts_as_its_end(value: int, counted: int) -> None:
    assert of([value]).at(0.5) == counted
