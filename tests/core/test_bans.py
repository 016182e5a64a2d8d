"""Bans: who is kept away, and until when."""

from __future__ import annotations

import pytest

from ssepool.core.bans import MAX_BAN_SECONDS, MAX_BANS, Bans
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.visit import Visit

ANN = Visit(grant=Grant(subject="ann"), ip="192.0.2.1")
BOB = Visit(grant=Grant(subject="bob"), ip="192.0.2.1")


class Unprintable:
    def __repr__(self) -> str:
        raise AssertionError("the fingerprint was asked for")


@pytest.mark.parametrize(("now", "banned"), [(0.0, True), (29.9, True), (30.0, False), (31.0, False)])
def test_a_ban_lasts_until_its_time(now: float, banned: bool) -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=30.0)
    assert bans.contains(ANN, now) is banned
    assert not bans.contains(BOB, now)


def test_it_is_known_how_long_a_ban_still_lasts() -> None:
    bans = Bans()
    assert bans.seconds_left(ANN, 0.0) == 0.0
    bans.add(ANN.fingerprint, until=30.0)
    assert [bans.seconds_left(ANN, now) for now in (0.0, 10.0, 30.0, 31.0)] == [30.0, 20.0, 0.0, 0.0]
    assert bans.seconds_left(BOB, 0.0) == 0.0


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
    stranger = Visit(grant=STRANGER, data=Unprintable())
    assert not bans.contains(stranger, 0.0)
    bans.add(ANN.fingerprint, until=1.0)
    bans.expire(2.0)
    assert not bans.contains(stranger, 2.0)


def test_there_is_room_for_so_many_and_the_oldest_go() -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=60.0)
    bans.add(BOB.fingerprint, until=60.0)
    bans.add(ANN.fingerprint, until=60.0)  # which makes it the newest
    for number in range(MAX_BANS - 1):
        bans.add(str(number), until=30.0)
    assert len(bans.left(0.0)) == MAX_BANS
    assert bans.contains(ANN, 0.0)
    assert not bans.contains(BOB, 0.0)


def test_what_is_left_is_told_to_another_with_another_clock() -> None:
    here, there = Bans(), Bans()
    here.add(ANN.fingerprint, until=30.0)
    here.add(BOB.fingerprint, until=10.0)
    assert here.left(10.0) == [(ANN.fingerprint, 20.0)]
    there.learn(here.left(10.0), now=500.0)
    assert there.contains(ANN, 519.0)
    assert not there.contains(ANN, 520.0)
    assert not there.contains(BOB, 500.0)


@pytest.mark.parametrize(("seconds", "until"), [(10.0, 30.0), (50.0, 50.0), (-5.0, 30.0)])
def test_a_ban_that_is_known_is_made_no_shorter(seconds: float, until: float) -> None:
    bans = Bans()
    bans.add(ANN.fingerprint, until=30.0)
    bans.learn([(ANN.fingerprint, seconds)], now=0.0)
    assert bans.left(0.0) == [(ANN.fingerprint, until)]


def test_no_ban_is_learnt_that_is_over_or_without_end() -> None:
    bans = Bans()
    bans.learn([("a", 0.0), ("b", -1.0), ("c", float("inf"))], now=0.0)
    assert bans.left(0.0) == [("c", MAX_BAN_SECONDS)]
