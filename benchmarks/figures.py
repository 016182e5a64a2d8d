"""The figures of a run that the tables and the plots show."""

from __future__ import annotations

from typing import Any

Run = dict[str, Any]
"""What `results.json` has of one run."""
Value = float | None
"""A figure; `None` if the run does not have it."""


def value(run: Run, *path: str) -> Value:
    """A figure of a run, by its path; `None` if there is none."""
    at: Any = run
    for name in path:
        at = at.get(name) if isinstance(at, dict) else None
    return at


def cpu(run: Run) -> Value:
    """Microseconds of server CPU per delivery."""
    return value(run, "server", "cpu_per_delivery")


def cpu_per_subscription(run: Run) -> Value:
    """Microseconds of server CPU per subscription."""
    return value(run, "server", "cpu_per_subscription")


def memory(run: Run) -> Value:
    """KiB of process memory per connection."""
    found = value(run, "server", "memory_per_connection")
    return None if found is None else found / 1024


def rate(run: Run) -> Value:
    """Deliveries a second."""
    return value(run, "delivering", "per_second")


def p99(run: Run) -> Value:
    """Milliseconds from the time an event was due until it was read."""
    return value(run, "delivering", "latency", "p99")


def to_last(run: Run) -> Value:
    """Milliseconds from the time an event was due until the last subscriber had it: the median event's."""
    return value(run, "delivering", "time_to_last", "p50")


def longest_stall(run: Run) -> Value:
    """Milliseconds that the event loop was held at most, if it was watched."""
    return value(run, "stall", "passed")
