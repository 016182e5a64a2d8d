"""The events that have been published and their readers: from both follows what has yet to come."""

from __future__ import annotations

from collections.abc import Sequence as Numbers

from ssepool.bench.sequence import Range


class Ledger:
    """The numbers that were sent to each topic on each lane, and how many subscribers are to get them."""

    def __init__(self, topics: int, lanes: int) -> None:
        self.sent = [[0] * lanes for _ in range(topics)]
        """By topic and lane: how many numbers have been sent."""
        self.void: dict[tuple[int, int], list[Range]] = {}
        """By topic and lane: numbers that the server has refused, or has perhaps not taken."""
        self.readers = 0
        """How many subscribers read now."""
        self.due = 0
        """All deliveries to the subscribers that read now, those that have come included."""
        self.reached = 0
        """How many of these lie before the number that their subscriber expects next."""
        self._readers = [0] * topics

    @property
    def behind(self) -> int:
        """How many deliveries are on their way, or will never come."""
        return self.due - self.reached

    def join(self, topic: int, expected: Numbers[int]) -> None:
        """A subscriber begins to read a topic; `expected` has, by lane, the number that it expects next."""
        self.readers += 1
        self._readers[topic] += 1
        self.due += sum(self.sent[topic])
        self.reached += sum(expected)

    def leave(self, topic: int, expected: Numbers[int]) -> None:
        """A subscriber has stopped reading a topic; `expected` is as in `join`, at its end."""
        self.readers -= 1
        self._readers[topic] -= 1
        self.due -= sum(self.sent[topic])
        self.reached -= sum(expected)

    def send(self, topic: int, lane: int) -> int:
        """Give the next event its number in this topic and lane."""
        number = self.sent[topic][lane]
        self.sent[topic][lane] = number + 1
        self.due += self._readers[topic]
        return number

    def refuse(self, topic: int, lane: int, number: int) -> None:
        """The server has not taken an event, so no subscriber is to get it."""
        ranges = self.void.setdefault((topic, lane), [])
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
