"""Revocations: which grants one takes back, for how long, and how many there may be."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from ssepool.brokers.base import MAX_FACT_BYTES, MAX_FACTS
from ssepool.core.grant import ANYBODY, STRANGER, Grant
from ssepool.core.revocations import EXPIRE_SECONDS, MAX_REVOCATIONS, MIN_KEPT_SECONDS, Revocation, Revocations
from ssepool.errors import RevocationsFull

NOW = 1_000_000.0


def revocation(**given: Any) -> Revocation:
    fields: dict[str, Any] = {"subject": None, "issuer": None, "token_id": None, "issued_before": None, "now": NOW}
    return Revocation.of(**{"max_token_age": 3600.0, **fields, **given})


def covers(grant: Grant, *given: Revocation) -> bool:
    revocations = Revocations()
    for one in given:
        revocations.add(one)
    return revocations.covers(grant)


U1 = Grant(subject="u1", issuer="me", token_id="t1", issued_at=NOW - 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"subject": "u1"}, True),
        ({"subject": "u2"}, False),
        ({"token_id": "t1"}, True),
        ({"token_id": "t2"}, False),
        ({"token_id": "u1"}, False),
        ({"subject": "u1", "token_id": "t1"}, True),
        ({"subject": "u1", "token_id": "t2"}, False),
        ({"subject": "u2", "token_id": "t1"}, False),
        ({"subject": "u1", "issuer": "me"}, True),
        ({"subject": "u1", "issuer": "other"}, False),
        ({"token_id": "t1", "issuer": "me"}, True),
        ({"token_id": "t1", "issuer": "other"}, False),
        ({"subject": "u1", "issuer": "me", "token_id": "t1", "issued_before": NOW}, True),
        ({"subject": "u1", "issued_before": NOW - 9.9}, True),
        ({"subject": "u1", "issued_before": NOW - 10}, False),
        ({"token_id": "t1", "issued_before": NOW - 10.1}, False),
    ],
)
def test_all_that_is_said_has_to_be_true(given: dict[str, Any], expected: bool) -> None:
    assert covers(U1, revocation(**given)) is expected


def test_who_logs_in_again_counts() -> None:
    logout = revocation(subject="u1", issued_before=NOW)
    assert covers(Grant(subject="u1", issued_at=NOW - 0.001), logout)
    assert not covers(Grant(subject="u1", issued_at=NOW), logout)


def test_a_grant_that_does_not_say_when_it_was_issued_may_be_of_any_time() -> None:
    assert covers(Grant(subject="u1"), revocation(subject="u1", issued_before=NOW))


def test_nobodys_grants_are_never_taken_back() -> None:
    everything = (revocation(subject="u1"), revocation(token_id="t1"))
    assert not any(covers(grant, *everything) for grant in (ANYBODY, STRANGER, Grant(issuer="me")))


def test_those_of_one_user_are_joined_to_the_widest() -> None:
    revocations = Revocations()
    early, late, all = (revocation(subject="u1", issued_before=before) for before in (NOW - 50, NOW - 5, None))
    assert revocations.add(late) == late
    assert revocations.add(early) == late
    assert revocations.add(all) == all
    assert revocations.add(late) == all
    assert len(revocations) == 1
    later = revocation(subject="u1", issued_before=NOW + 100, now=NOW + 100)
    assert revocations.add(later).until == NOW + 100 + MIN_KEPT_SECONDS


def test_one_of_everything_is_kept_beside_one_of_what_was_before() -> None:
    ids = [revocation(subject="u1").id, revocation(subject="u1", issued_before=1.0).id]
    ids += [revocation(subject="u1", token_id="t1").id, revocation(token_id="u1").id]
    assert len(set(ids)) == 4
    assert revocation(subject="u1", issued_before=2.0).id == ids[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "takes a subject or a token_id"),
        ({"issuer": "me"}, "takes a subject or a token_id"),
        ({"issued_before": NOW}, "takes a subject or a token_id"),
        ({"subject": ""}, "subject '' is not allowed: it takes 1 to 256 characters"),
        ({"subject": "x" * 257}, "it takes 1 to 256 characters"),
        ({"token_id": 7}, "token_id 7 is not allowed"),
        ({"subject": "\ud800"}, "it takes 1 to 256 characters"),
        ({"subject": "u1", "issued_before": -1.0}, "issued_before -1.0 is not allowed: it takes seconds since"),
        ({"subject": "u1", "issued_before": NOW + MIN_KEPT_SECONDS + 1}, "1086400 at most"),
        ({"subject": "u1", "issued_before": float("nan")}, "issued_before nan is not allowed"),
    ],
)
def test_what_says_nobodys_or_is_not_well_formed_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        revocation(**given)


def test_one_is_forgotten_when_no_such_grant_can_be_left() -> None:
    revocations = Revocations()
    revocations.expire(NOW)
    revocations.add(revocation(subject="u1"))
    revocations.expire(NOW + MIN_KEPT_SECONDS - 1)
    assert revocations.covers(U1)
    revocations.expire(NOW + MIN_KEPT_SECONDS)  # it has just been looked
    assert revocations.covers(U1)
    revocations.expire(NOW + MIN_KEPT_SECONDS + EXPIRE_SECONDS)
    assert not revocations.covers(U1)
    assert list(revocations) == []


def test_none_is_given_up_for_another() -> None:
    revocations = Revocations()
    for number in range(3):
        revocations.add(revocation(subject=f"u{number}"), 3)
    with pytest.raises(RevocationsFull, match=r"^3 revocations are in force, which is the most; one more is not kept$"):
        revocations.add(revocation(subject="u3"), 3)
    revocations.add(revocation(subject="u1", issued_before=NOW), 3)
    assert [one.subject for one in revocations] == ["u0", "u1", "u2"]


def test_the_broker_keeps_as_many_as_a_node_and_the_largest() -> None:
    assert MAX_REVOCATIONS == MAX_FACTS
    largest = revocation(subject="\0" * 256, issuer="\0" * 256, token_id="\0" * 256, issued_before=NOW + 0.123456789)
    assert len(msgspec.json.encode(largest)) <= MAX_FACT_BYTES


def test_pages_follow_each_other() -> None:
    revocations = Revocations()
    for number in range(5):
        revocations.add(revocation(subject=f"u{number}"))
    first = revocations.page(None, 2) or []
    second = revocations.page(first[-1].id, 2) or []
    third = revocations.page(second[-1].id, 2) or []
    assert [one.subject for one in first + second + third] == [f"u{number}" for number in range(5)]
    assert revocations.page("nobody", 2) is None
    assert revocations.page(third[-1].id, 2) == []


def test_to_ask_takes_as_long_however_many_there_are() -> None:
    few, many = Revocations(), Revocations()
    few.add(revocation(subject="x"))
    for number in range(20_000):
        many.add(revocation(subject=f"x{number}"))

    def cost(revocations: Revocations) -> float:
        began = time.thread_time()
        for _ in range(2000):
            revocations.covers(U1)
        return time.thread_time() - began

    assert min(cost(many) for _ in range(5)) < 5 * min(cost(few) for _ in range(5))


def test_a_revocation_is_kept_for_as_long_as_a_token_may_live() -> None:
    week = 7 * MIN_KEPT_SECONDS
    assert revocation(token_id="t", max_token_age=week).until == NOW + week
    assert revocation(token_id="t", max_token_age=60.0).until == NOW + MIN_KEPT_SECONDS
