"""Tally: events a second of each topic, over the last minute, in bounded memory."""

from __future__ import annotations

import pytest

from ssepool.core.tally import MAX_RECENT, Tally


class Log:
    """What puts events into a tally."""

    def __init__(self) -> None:
        self.tally = Tally(0)
        self.total = 0

    def put(self, now: float, *events: tuple[str, ...]) -> None:
        if now >= self.tally.due:
            self.tally.mark(now, self.total)
        self.tally.recent.extend(events)
        self.total += len(events)

    def rates(self, now: float) -> dict[str, float]:
        return self.tally.rates(now, self.total)


def test_the_rate_is_that_of_the_last_minute() -> None:
    log = Log()
    for tenth in range(3000):
        log.put(tenth / 10, ("often", "seldom") if tenth % 10 == 0 else ("often",))
    assert log.rates(300) == pytest.approx({"often": 10, "seldom": 1}, rel=0.03)


def test_it_falls_to_nothing_when_nothing_comes() -> None:
    log = Log()
    for second in range(60):
        log.put(second, ("a",))
    assert log.rates(60) == {"a": 1}
    assert log.rates(100) == pytest.approx({"a": 1 / 3}, rel=0.1)
    assert log.rates(140) == {}


def test_what_is_seldom_has_no_high_rate() -> None:
    log = Log()
    log.put(0.001, ("a",))
    assert log.rates(0.002) == {"a": 0.1}
    for time in range(30, 3000, 30):
        log.put(time, ("a",))
    assert log.rates(2999) == pytest.approx({"a": 2 / 60})


def test_of_many_events_the_share_of_the_newest_counts() -> None:
    log = Log()
    for second in range(60):
        log.put(second, *[("busy",), ("other", "third")] * 1000)
    assert len(log.tally.recent) == MAX_RECENT
    assert log.rates(60) == pytest.approx({"busy": 1000, "other": 1000, "third": 1000})
