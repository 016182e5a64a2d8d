"""A histogram of whole numbers in log-linear buckets, like HdrHistogram: fixed memory, and a known precision."""

from __future__ import annotations

import math
from collections.abc import Iterator

BUCKET_BITS = 7
"""Each power of two is divided into `2**BUCKET_BITS` buckets: a number that is read off is at most 1/128 too great."""
EXACT_BELOW = 2 << BUCKET_BITS
"""Every number below this has a bucket of its own."""
MAX_VALUE = (1 << 40) - 1
"""Greater numbers count as this one. In microseconds it is twelve days."""


class Histogram:
    """Counts of numbers, here microseconds, from 0 to `MAX_VALUE`; lesser and greater ones count as these two."""

    __slots__ = ("_counts", "count", "greatest", "total")

    def __init__(self) -> None:
        self._counts = [0] * (bucket(MAX_VALUE) + 1)
        self.count = 0
        """How many numbers have been recorded."""
        self.greatest = 0
        """The greatest number, exactly."""
        self.total = 0
        """The sum of all numbers, exactly."""

    def record(self, value: int, count: int = 1) -> None:
        """Count a number, `count` times."""
        value = min(max(value, 0), MAX_VALUE)
        self._counts[bucket(value)] += count
        self.count += count
        self.total += value * count
        if value > self.greatest:
            self.greatest = value

    @property
    def mean(self) -> float:
        """The exact mean of all numbers; 0 without any."""
        return self.total / self.count if self.count else 0.0

    def at(self, share: float) -> int:
        """The quantile: a number that `share` of all numbers (0 to 1) do not exceed; 0 without any."""
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for greatest, count in self.buckets():
            seen += count
            if seen >= rank:
                return greatest
        return self.greatest

    def buckets(self) -> Iterator[tuple[int, int]]:
        """The greatest number and the count of each bucket that is not empty, in ascending order."""
        for index, count in enumerate(self._counts):
            if count:
                yield min(greatest_of(index), self.greatest), count


def bucket(value: int) -> int:
    """The index of the bucket that a number belongs to."""
    shift = max(0, value.bit_length() - BUCKET_BITS - 1)
    return (shift << BUCKET_BITS) + (value >> shift)


def greatest_of(index: int) -> int:
    """The greatest number that belongs to the bucket with this index."""
    if index < EXACT_BELOW:
        return index
    shift = (index >> BUCKET_BITS) - 1
    return ((index - (shift << BUCKET_BITS) + 1) << shift) - 1
