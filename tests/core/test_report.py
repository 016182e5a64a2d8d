"""Reports: what several processes have together."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from msgspec import UNSET

from ssepool.core.report import BrokerReport, EventCounts, HistorySize, NodeReport, Report, merged
from ssepool.core.stats import HubStats, PoolStats

NUMBERS = [item.name for item in fields(PoolStats) if item.name not in ("state", "released")]


def pool_stats(first: int, state: str = "open", **released: int) -> PoolStats:
    """Numbers that all differ, from `first` on."""
    return PoolStats(state=state, released=released, **{name: first + place for place, name in enumerate(NUMBERS)})  # type: ignore[arg-type]


def report(node: str, first: int, state: str = "open", **more: Any) -> Report:
    stats = HubStats(
        node=node,
        pool=pool_stats(first, state, kicked=first, idle=1),
        events_published=first + 100,
        events_delivered=first + 101,
        events_skipped=first + 102,
        bytes_sent=first + 103,
        feeds=first + 104,
        history_events=first + 105,
        history_bytes=first + 106,
        uptime=first + 0.12345,
    )
    return Report.of(stats, **more)


def test_a_report_has_the_numbers_of_its_hub() -> None:
    assert report("a", 0, cells="fo") == Report(
        node="a",
        pool=pool_stats(0, kicked=0, idle=1),
        events=EventCounts(published=100, delivered=101, skipped=102),
        bytes_sent=103,
        feeds=104,
        history=HistorySize(events=105, bytes=106),
        uptime=0.123,
        cells="fo",
    )


def test_of_several_what_each_has_of_its_own_is_summed() -> None:
    together = merged([report("a", 0), report("b", 1000), report("c", 2000)])
    for place, name in enumerate(NUMBERS):
        assert getattr(together.pool, name) == 3000 + 3 * place, name
    assert together.pool.released == {"kicked": 3000, "idle": 3}
    assert (together.events.delivered, together.events.skipped) == (3303, 3306)
    assert (together.bytes_sent, together.feeds) == (3309, 3312)


def test_of_several_what_all_see_alike_is_that_of_the_first() -> None:
    together = merged([report("a", 0), report("b", 1000)])
    assert (together.node, together.events.published, together.uptime) == ("a", 100, 0.123)
    assert together.history == HistorySize(events=105, bytes=106)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["open"], "open"),
        (["draining", "open"], "open"),
        (["open", "closed"], "open"),
        (["draining", "closed"], "draining"),
        (["closed", "draining"], "closed"),
        (["new", "new"], "new"),
    ],
)
def test_a_pool_of_several_is_open_as_long_as_one_of_them_is(states: list[str], expected: str) -> None:
    assert merged([report("a", 0, state) for state in states]).pool.state == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [((UNSET, UNSET), UNSET), (("fo", UNSET), "fo"), (("fo", "", "c"), "foc")],
)
def test_cells_are_joined_where_there_are_any(cells: tuple[Any, ...], expected: Any) -> None:
    assert merged([report("a", 0, cells=each) for each in cells]).cells == expected


def test_nodes_together_are_no_node() -> None:
    broker = BrokerReport("memory://", 7, 0, None)
    node = NodeReport.of(
        HubStats("a", pool_stats(0), 0, 0, 0, 0, 0, 0, 0, 0.0), host="h", pid=1, worker=None, broker=broker
    )
    assert (node.host, node.broker) == ("h", broker)
    assert type(merged([node, node])) is Report


def test_of_none_there_is_no_report() -> None:
    with pytest.raises(IndexError):
        merged([])
