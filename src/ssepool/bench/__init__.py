"""A load tool for any server of Server-Sent Events: `run(Plan(...))` returns a `Report`.

One thread and one poller carry many subscribers and a few publishers. Each event carries a number and the time it was
due, so lost, doubled and reordered events are counted exactly, for each subscriber.
"""

from ssepool.bench.measurement import Progress, run
from ssepool.bench.plan import Plan
from ssepool.bench.publisher import BenchError
from ssepool.bench.report import Report

__all__ = ["BenchError", "Plan", "Progress", "Report", "run"]
