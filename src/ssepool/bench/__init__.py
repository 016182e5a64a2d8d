"""A load tool for any server of Server-Sent Events: `run(Plan(...))` returns a `Report`.

One thread and one poller carry many subscribers and a few publishers. Each event carries a number and the time it was
due, so lost, doubled and reordered events are counted exactly, for each subscriber.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssepool.bench.measurement import Progress, run
    from ssepool.bench.plan import Plan
    from ssepool.bench.publisher import BenchError
    from ssepool.bench.report import Report

__all__ = ["BenchError", "Plan", "Progress", "Report", "run"]

_LAZY = {
    "BenchError": "ssepool.bench.publisher",
    "Plan": "ssepool.bench.plan",
    "Progress": "ssepool.bench.measurement",
    "Report": "ssepool.bench.report",
    "run": "ssepool.bench.measurement",
}
"""Where each name is, loaded when it is first used: every command reads the fields of `Plan`, and none but `bench` runs
it."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return found
