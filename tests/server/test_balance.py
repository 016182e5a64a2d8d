"""Balance: which worker takes the next client."""

from __future__ import annotations

import itertools

import pytest

from parts import Applicant
from ssepool.config import PoolConfig
from ssepool.core.pool import Pool
from ssepool.server.balance import ROW_FIELDS, SLACK_CLIENTS, STALE_SECONDS, Balance

NOW = 100.0
OLD = NOW - STALE_SECONDS - 0.1

# Rows are (free, held, told at); the first one is this worker's.
LEAVES: dict[str, tuple[list[tuple[float, float, float]], bool]] = {
    "it is alone": ([(0, 10, NOW)], False),
    "all are empty": ([(10, 0, NOW), (10, 0, NOW)], False),
    "it is full and another one is not": ([(0, 10, NOW), (1, 9, NOW)], True),
    "it is full and has fewer": ([(0, 1, NOW), (1, 9, NOW)], True),
    "all are full": ([(0, 10, NOW), (0, 10, NOW)], False),
    "it has a few more": ([(100, SLACK_CLIENTS, NOW), (100, 0, NOW)], False),
    "it has too many more": ([(100, SLACK_CLIENTS + 1, NOW), (100, 0, NOW)], True),
    "it has fewer": ([(100, 0, NOW), (100, 500, NOW)], False),
    "it has more than one that is full": ([(100, 500, NOW), (0, 10, NOW)], False),
    "it has more than one that hangs": ([(100, 500, NOW), (100, 0, OLD)], False),
    "it is full and the other one hangs": ([(0, 10, NOW), (10, 0, OLD)], False),
    "the other one has not started": ([(0, 10, NOW), (0, 0, 0)], False),
    "the last of several has room": ([(0, 10, NOW), (0, 10, NOW), (5, 0, OLD), (1, 9, NOW)], True),
}


@pytest.mark.parametrize(("rows", "leaves"), LEAVES.values(), ids=LEAVES)
def test_a_worker_leaves_a_client_to_another_one_if(rows: list[tuple[float, ...]], leaves: bool) -> None:
    assert Balance(list(itertools.chain(*rows)), 0).leaves_to_others(NOW) is leaves
    others = [*rows[1:], rows[0]]  # wherever its row is
    assert Balance(list(itertools.chain(*others)), len(rows) - 1).leaves_to_others(NOW) is leaves


def test_a_worker_writes_down_its_own_row_alone() -> None:
    table = [-1.0] * (3 * ROW_FIELDS)
    balance, pool = Balance(table, 1), Pool(PoolConfig(size=5))
    pool.open()
    pool.acquire(NOW, Applicant())
    balance.tell(pool, NOW)
    assert table == [-1.0] * 3 + [4, 1, NOW] + [-1.0] * 3


@pytest.mark.parametrize("state", ["new", "draining", "closed"])
def test_a_pool_that_takes_nobody_has_nothing_free(state: str) -> None:
    table = [-1.0] * ROW_FIELDS
    pool = Pool(PoolConfig(size=5))
    if state != "new":
        pool.open()
    if state == "draining":
        pool.drain(NOW, 1.0)
    if state == "closed":
        pool.close()
    Balance(table, 0).tell(pool, NOW)
    assert table == [0, len(pool.slots), NOW]


def test_two_workers_that_look_after_each_client_stay_together() -> None:
    table = [0.0] * (2 * ROW_FIELDS)
    pools = [Pool(PoolConfig(size=300)) for _ in range(2)]
    balances = [Balance(table, number) for number in range(2)]
    for pool, balance in zip(pools, balances, strict=True):
        pool.open()
        balance.tell(pool, NOW)
    taken = [0, 0]
    for _ in range(600):
        number = 0 if not balances[0].leaves_to_others(NOW) else 1  # the first one is always the faster
        pools[number].acquire(NOW, Applicant())
        taken[number] += 1
        balances[number].tell(pools[number], NOW)
        assert taken[0] - taken[1] <= SLACK_CLIENTS + 1
    assert taken == [300, 300]
