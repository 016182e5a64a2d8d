"""What has been published and to how many, so that it can be told what has yet to come."""

from __future__ import annotations

from collections.abc import Sequence as Numbers

from ssepool.bench.sequence import Range


class Ledger:
    """The numbers sent to each topic on each lane, and the subscribers who are to get them."""

    def __init__(self, topics: int, lanes: int) -> None:
        self.sent = [[0] * lanes for _ in range(topics)]
        """By topic and lane: how many numbers have been sent."""
        self.void: dict[tuple[int, int], list[Range]] = {}
        """By topic and lane: numbers that the server has refused, or of which it is not known whether it took them."""
        self.readers = 0
        self.due = 0
        """Deliveries that those who read now were, or are to be, sent."""
        self.reached = 0
        """Of these, how many come before what they expect next."""
        self._readers = [0] * topics

    @property
    def behind(self) -> int:
        """Deliveries that are on their way, or will never come."""
        return self.due - self.reached

    def join(self, topic: int, expected: Numbers[int]) -> None:
        """Somebody reads a topic who, by lane, expects these numbers next."""
        self.readers += 1
        self._readers[topic] += 1
        self.due += sum(self.sent[topic])
        self.reached += sum(expected)

    def leave(self, topic: int, expected: Numbers[int]) -> None:
        """Somebody who read a topic does not any more."""
        self.readers -= 1
        self._readers[topic] -= 1
        self.due -= sum(self.sent[topic])
        self.reached -= sum(expected)

    def send(self, topic: int, lane: int) -> int:
        """Give an event its number."""
        number = self.sent[topic][lane]
        self.sent[topic][lane] = number + 1
        self.due += self._readers[topic]
        return number

    def refuse(self, topic: int, lane: int, number: int) -> None:
        """An event has not been taken, so nobody is to get it."""
        ranges = self.void.setdefault((topic, lane), [])
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
