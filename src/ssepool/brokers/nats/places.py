"""Places: where in the stream the batches are that have been read, so that nobody has to search for them."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from ssepool.brokers.nats.batch import Batch

MAX_PLACES = 65_536
"""Batches that are remembered at least, once there are so many; at most twice as many."""

_FIELDS = 6


class Places:
    """The batches of one stream, in the order in which they were read first. It takes 48 bytes for each."""

    def __init__(self) -> None:
        self._numbers = array("q")
        """Of each batch: the position before it, its events, its first message, its messages, its bytes, its epoch."""
        self._epochs: list[str] = []

    def add(self, batch: Batch) -> None:
        """Remember a batch, unless one behind it is remembered already."""
        numbers = self._numbers
        if numbers and batch.after <= numbers[-_FIELDS]:
            return
        if not self._epochs or self._epochs[-1] != batch.epoch:
            self._epochs.append(batch.epoch)
        numbers.extend((batch.after, batch.events, batch.first, batch.of, batch.size, len(self._epochs) - 1))
        if len(numbers) >= 2 * MAX_PLACES * _FIELDS:
            del numbers[: MAX_PLACES * _FIELDS]

    def batch_of(self, position: int) -> Batch | None:
        """The batch that has, or had, the event at a position; None if it is not remembered."""
        numbers = self._numbers
        number = bisect_left(range(len(numbers) // _FIELDS), position, key=lambda n: numbers[n * _FIELDS]) - 1
        if number < 0:
            return None
        after, events, first, of, size, epoch = numbers[number * _FIELDS : (number + 1) * _FIELDS]
        batch = Batch(self._epochs[epoch], after, events, first, of, size)
        return batch if batch.has(position) else None

    def forget(self) -> None:
        """Forget all batches, because places may have been given out a second time."""
        self._numbers = array("q")
        self._epochs = []
