"""Bans: who is kept away, and until when."""

from __future__ import annotations

import pytest

from ssepool.core.bans import Bans
from ssepool.core.visit import Visit

ANN = Visit(ip="192.0.2.1", user="ann")
BOB = Visit(ip="192.0.2.1", user="bob")


class Unprintable:
    def __repr__(self) -> str:
        raise AssertionError("the fingerprint was asked for")


@pytest.mark.parametrize(("now", "banned"), [(0.0, True), (29.9, True), (30.0, False), (31.0, False)])
def test_a_ban_lasts_until_its_time(now: float, banned: bool) -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=30.0)
    assert bans.contains(ANN, now) is banned
    assert not bans.contains(BOB, now)


def test_a_second_ban_replaces_the_first() -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=30.0)
    bans.add(ANN.fingerprint, until=10.0)
    assert not bans.contains(ANN, 20.0)


def test_a_ban_that_has_run_out_is_forgotten_and_the_others_stay() -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=30.0)
    bans.add(BOB.fingerprint, until=60.0)
    bans.expire(30.0)
    assert not bans.contains(ANN, 0.0)  # as it would be if only the time were compared
    assert bans.contains(BOB, 59.0)


def test_a_visit_costs_nothing_while_nobody_is_banned() -> None:
    bans = Bans()
    stranger = Visit(data=Unprintable())
    assert not bans.contains(stranger, 0.0)
    bans.add(ANN.fingerprint, until=1.0)
    bans.expire(2.0)
    assert not bans.contains(stranger, 2.0)
