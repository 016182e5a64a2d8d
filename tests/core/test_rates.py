"""Rates: what a source may do a second, what it may do at once, and that nobody gains by being forgotten."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssepool.config import HubConfig
from ssepool.core.rates import BURST_SECONDS, Rate, Rates

KINDS = ("subscribe", "publish", "message", "failure")


@pytest.mark.parametrize(
    ("per_second", "burst"), [(1, 10), (3, 30), (100, 1000), (0.3, 3), (1 / 7, 1), (0.01, 1), (1e6, 10_000_000)]
)
def test_the_burst_is_so_many_seconds_worth_and_one_at_least(per_second: float, burst: int) -> None:
    rate = Rate(per_second)
    assert rate.burst == burst
    if burst <= 1000:
        assert [rate.take("a", 5.0) for _ in range(burst)] == [0.0] * burst
        assert rate.take("a", 5.0) > 0
    assert Rate(per_second).take("a", 5.0, burst) == 0.0
    assert Rate(per_second).take("a", 5.0, burst + 1) > 0


def test_who_waits_as_long_as_it_is_told_may_go_on_and_no_earlier() -> None:
    rate = Rate(2)
    assert rate.take("a", 100.0, 20) == 0.0
    assert rate.take("a", 100.0) == pytest.approx(0.5)
    assert rate.take("a", 100.4) == pytest.approx(0.1)  # what was refused has cost nothing
    assert rate.take("a", 100.5) == 0.0
    assert rate.take("a", 100.5, 20) == pytest.approx(10.0)
    assert rate.take("b", 100.5, 20) == 0.0


def test_looking_takes_nothing() -> None:
    rate = Rate(1)
    assert [rate.wait("a", 0.0, 10) for _ in range(5)] == [0.0] * 5
    assert rate.take("a", 0.0, 10) == 0.0
    assert rate.wait("a", 0.0) == pytest.approx(1.0)
    assert len(rate) == 1


def test_who_is_pushed_out_by_a_crowd_gains_nothing() -> None:
    rate = Rate(1, max_sources=100)
    assert rate.take("mallory", 0.0, 10) == 0.0
    assert rate.take("mallory", 0.0) > 0
    for number in range(10_000):
        rate.take(f"bot {number}", 0.0)
    assert len(rate) == 100
    assert "mallory" not in rate._full_at
    assert rate.take("mallory", 0.0) > 0
    assert rate.take("mallory", 5.0, 6) > 0
    assert rate.take("mallory", 5.0, 5) == 0.0


def test_a_crowd_costs_a_newcomer_no_more_than_what_one_of_it_did() -> None:
    rate = Rate(1, max_sources=10, cells=4)  # everybody shares a cell
    for number in range(10_000):
        rate.take(f"bot {number}", 0.0, 3)
    # Who of the crowd came late began with the debt of its cell; the newcomer has at the worst a bucket to wait for.
    assert rate.wait("honest", 0.0) <= BURST_SECONDS
    assert rate.wait("honest", BURST_SECONDS) == 0.0


def test_a_newcomer_loses_one_event_to_a_crowd_of_which_each_did_one() -> None:
    rate = Rate(1, max_sources=10)
    for number in range(1000):
        rate.take(f"bot {number}", 0.0)
    assert rate.take("honest", 0.0, 7) == 0.0


def test_who_was_seen_last_stays() -> None:
    rate = Rate(1, max_sources=2)
    rate.take("a", 0.0, 10)
    rate.take("b", 0.0)
    rate.take("a", 0.0)  # refused, but seen
    rate.take("c", 0.0)
    assert list(rate._full_at) == ["a", "c"]


@example([(0.0, "a", 3), (1.39453125, "a", 8), (0.1015625, "a", 12)])
@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abcd"), st.integers(1, 12)), max_size=60))
def test_no_source_ever_does_more_than_its_burst_and_its_rate(steps: list[tuple[float, str, int]]) -> None:
    rate, now, done = Rate(2, max_sources=2, cells=1), 0.0, [(0.0, "a", 0)]
    for passed, source, count in steps:
        now += passed
        if not rate.take(source, now, count):
            done.append((now, source, count))
    for source in "abcd":
        mine = [(at, count) for at, who, count in done if who == source]
        for first in range(len(mine)):
            total = 0
            for at, count in mine[first:]:
                total += count
                assert total <= rate.burst + 2 * (at - mine[first][0]) + 1e-3


# The rates of a hub.


def test_without_rates_nothing_is_refused_or_remembered() -> None:
    for rates in (Rates(HubConfig()), Rates(HubConfig(subscribe_rate=0, publish_rate=0, failure_rate=0))):
        for kind in KINDS:
            assert rates.refusal(kind, "192.0.2.7", 0.0, 10**9) is None
            assert rates.allows(kind, "192.0.2.7", 0.0, 10**9, take=True)
            assert getattr(rates, kind) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_says_which_rate_and_when_to_come_back_and_is_counted(kind: str) -> None:
    rates = Rates(HubConfig(**{f"{kind}_rate": 0.5}))
    assert rates.refusal(kind, "2001:db8::1", 0.0, 5) is None
    refusal = rates.refusal(kind, "2001:db8::2", 0.0)  # of the same /64
    assert str(refusal) == (
        f"{kind}_rate = 0.5 is used up by 2001:db8::/64: it allows 5 at once and 0.5 a second; come back in 2.0 s"
    )
    assert refusal is not None
    assert refusal.seconds == pytest.approx(2.0)
    assert rates.refusal(kind, "2001:db8:0:1::1", 0.0) is None
    assert rates.refusal(kind, None, 0.0, 100) is None
    assert rates.refusal(kind, "", 0.0, 100) is None
    assert rates.refused == {name: int(name == kind) for name in KINDS}


def test_only_what_is_asked_to_take_takes() -> None:
    rates = Rates(HubConfig(publish_rate=1))
    for _ in range(3):
        assert rates.allows("publish", "a", 0.0, 10)
        assert rates.refusal("publish", "a", 0.0, 10, take=False) is None
    assert rates.allows("publish", "a", 0.0, 10, take=True)
    assert not rates.allows("publish", "a", 0.0)
    assert rates.refusal("publish", "a", 0.0, take=False) is not None
    assert rates.refused["publish"] == 1  # `allows` is for who asks again


def test_a_user_counts_as_himself_wherever_he_is() -> None:
    rates = Rates(HubConfig(publish_rate=1))
    assert rates.allows("publish", "192.0.2.7", 0.0, 10, take=True)
    assert rates.refusal("publish", "192.0.2.7", 0.0) is not None
    assert rates.refusal("publish", "192.0.2.7", 0.0, 10, user="ann") is None
    refusal = rates.refusal("publish", "192.0.2.8", 0.0, user="ann")
    assert "is used up by user 'ann'" in str(refusal)
    assert rates.refusal("publish", "192.0.2.8", 0.0, user="bob") is None
    assert rates.refusal("publish", None, 0.0, 1000) is None
