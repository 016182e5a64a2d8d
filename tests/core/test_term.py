"""Terms: a stream ends with its grant or a little earlier, never later, and its client is told ahead of it."""

from __future__ import annotations

import pytest

from ssepool.core.slot import NEVER
from ssepool.core.states import Reason
from ssepool.core.term import ENDLESS, Term, term_of

NOW = 1000.0


def term(life: float = NEVER, max_age: float = NEVER, *, look: float = 1.0, chance: float = 0.0) -> Term:
    return term_of(life, max_age, now=NOW, look=look, chance=chance)


def test_what_does_not_end_is_never_over() -> None:
    assert not ENDLESS.is_over(1e300)
    assert term().ends_at == NEVER


@pytest.mark.parametrize("life", [0.5, 3.0, 60.0, 300.0, 3600.0, 86_400.0, 1e9])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("look", [0.01, 1.0, 10.0])
def test_a_look_that_comes_late_ends_it_in_time(life: float, chance: float, look: float) -> None:
    found = term(life, look=look, chance=chance)
    assert found.ends_at + look <= NOW + life + 1e-6
    assert found.ends_at >= NOW + life - look - min(0.05 * life, 10.0)
    assert found.reason is Reason.TOKEN_EXPIRED
    assert found.expires_at == NOW + life
    assert found.warns_at <= found.ends_at


@pytest.mark.parametrize(("life", "ahead"), [(3601.0, 60.0), (601.0, 60.0), (301.0, 30.0), (11.0, 1.0)])
def test_the_client_is_told_a_minute_ahead_or_a_tenth_of_what_is_left(life: float, ahead: float) -> None:
    found = term(life)
    assert found.ends_at - found.warns_at == pytest.approx(ahead)


@pytest.mark.parametrize("life", [-5.0, 0.0, 0.9, 1.0])
def test_what_has_run_out_or_will_before_anybody_looks_is_over(life: float) -> None:
    assert term(life).is_over(NOW)


def test_clients_that_came_together_are_asked_again_apart() -> None:
    ends = [term(max_age=1800.0, chance=chance / 10).ends_at - NOW for chance in range(11)]
    assert ends == pytest.approx([1800 - 18 * chance for chance in range(11)])
    assert term(max_age=1800.0) == Term(NOW + 1800, Reason.LIFETIME)


def test_what_comes_first_ends_it() -> None:
    assert term(86_400.0, 1800.0).reason is Reason.LIFETIME
    assert term(900.0, 1800.0).reason is Reason.TOKEN_EXPIRED


def test_who_is_asked_again_shortly_before_the_grant_ends_is_told_of_that() -> None:
    found = term(1830.0, 1800.0)
    assert (found.ends_at, found.reason) == (NOW + 1800, Reason.LIFETIME)
    assert found.warns_at == pytest.approx(NOW + 1829 - 60)
