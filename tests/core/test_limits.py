"""Limits by address, user and topic: what counts, what is exceeded, and that nothing is left over."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.config import PoolConfig
from ssepool.core.limits import Limits

ALL = PoolConfig(max_per_ip=2, max_per_user=3, max_per_topic=4)


def test_without_limits_nothing_is_counted() -> None:
    limits = Limits(PoolConfig())
    assert limits.keys("::1", "ann", ["news"]) == ()
    limits.take(())
    assert limits.taken() == {}


def test_there_are_limits_or_none() -> None:
    assert not Limits(PoolConfig()).any
    assert Limits(PoolConfig(max_per_user=1)).any


def test_only_kinds_that_have_a_limit_are_counted() -> None:
    assert Limits(PoolConfig(max_per_user=1)).keys("::1", "ann", ["a", "b"]) == (("user", "ann"),)
    assert Limits(PoolConfig(max_per_ip=1)).keys("::1", "ann", ["a", "b"]) == (("ip", "::/64"),)
    assert Limits(PoolConfig(max_per_topic=1)).keys("::1", "ann", ["a", "b"]) == (("topic", "a"), ("topic", "b"))


def test_who_has_no_address_or_no_user_is_not_counted_there() -> None:
    assert Limits(ALL).keys(None, None, ["a"]) == (("topic", "a"),)
    assert Limits(ALL).keys(None, None, []) == ()


def test_an_address_counts_as_its_network_and_an_empty_one_as_itself() -> None:
    limits = Limits(PoolConfig(max_per_ip=1, max_waiting_per_ip=1))
    assert limits.keys("2001:db8::1", None, []) == (("ip", "2001:db8::/64"),)
    assert limits.waiting_keys("2001:db8::1") == (("waiting", "2001:db8::/64"),)
    assert limits.keys("", None, []) == (("ip", ""),)


def test_who_waits_is_counted_beside_who_is_here() -> None:
    limits = Limits(PoolConfig(max_waiting_per_ip=1))
    waiting = limits.waiting_keys("192.0.2.7")
    assert limits.keys("192.0.2.7", None, []) == ()
    limits.take(waiting)
    assert limits.exceeded(waiting) == "max_waiting_per_ip=1 reached by ip '192.0.2.7'"
    assert limits.exceeded(limits.waiting_keys("192.0.2.8")) is None
    assert limits.waiting_keys(None) == Limits(PoolConfig()).waiting_keys("192.0.2.7") == ()


def test_zero_is_no_limit() -> None:
    limits = Limits(PoolConfig(max_per_ip=0, max_waiting_per_ip=0, max_per_user=0, max_per_topic=0))
    assert not limits.any
    assert (limits.keys("192.0.2.7", "ann", ["news"]), limits.waiting_keys("192.0.2.7")) == ((), ())


def test_an_empty_user_name_is_a_name() -> None:
    assert Limits(ALL).keys(None, "", []) == (("user", ""),)


def test_a_topic_named_twice_counts_once() -> None:
    assert Limits(ALL).keys(None, None, ["a", "b", "a"]) == (("topic", "a"), ("topic", "b"))


def test_address_user_and_topic_of_one_name_are_counted_apart() -> None:
    limits = Limits(PoolConfig(max_per_ip=1, max_per_user=1, max_per_topic=1))
    limits.take(limits.keys("x", None, []))
    assert limits.exceeded(limits.keys(None, "x", ["x"])) is None


@pytest.mark.parametrize(
    ("ip", "user", "topics", "sentence"),
    [
        ("::1", None, [], "max_per_ip=2 reached by ip '::/64'"),
        (None, "ann", [], "max_per_user=3 reached by user 'ann'"),
        (None, None, ["quiet", "news"], "max_per_topic=4 reached by topic 'news'"),
    ],
)
def test_the_sentence_names_setting_value_and_who(
    ip: str | None, user: str | None, topics: list[str], sentence: str
) -> None:
    limits, most = Limits(ALL), {"ip": 2, "user": 3, "topic": 4}
    key = next(key for key in reversed(limits.keys(ip, user, topics)))
    for _ in range(most[key[0]]):
        assert limits.exceeded(limits.keys(ip, user, topics)) is None
        limits.take((key,))
    assert limits.exceeded(limits.keys(ip, user, topics)) == sentence
    limits.give((key,))
    assert limits.exceeded(limits.keys(ip, user, topics)) is None


def test_different_patterns_are_bounded_however_many_have_them() -> None:
    limits = Limits(PoolConfig(max_patterns=3))
    one, two = limits.keys("::1", None, ["*"], ["*", "a/*"]), limits.keys("::1", None, ["*"], ["*", "b/*"])
    assert one == (("pattern", "*"), ("pattern", "a/*"))
    for keys in (one, one, two):
        assert limits.exceeded(keys) is None
        limits.take(keys)
    assert limits.exceeded(two) is None
    assert limits.exceeded(limits.keys(None, None, [], ["c"])) == "max_patterns=3 does not allow 1 more than 3"
    limits.give(one)
    assert limits.exceeded(limits.keys(None, None, [], ["c"])) is not None
    limits.give(one)
    assert limits.exceeded(limits.keys(None, None, [], ["c"])) is None
    assert limits.exceeded(limits.keys(None, None, [], ["c", "d"])) == "max_patterns=3 does not allow 2 more than 2"
    limits.give(two)
    assert limits.taken() == {}


def test_patterns_and_other_limits_are_counted_apart() -> None:
    limits = Limits(PoolConfig(max_per_topic=1, max_patterns=0))
    limits.take(limits.keys(None, None, ["*"]))
    assert limits.exceeded(limits.keys(None, None, ["a"])) is None
    assert limits.exceeded(limits.keys(None, None, ["a"], ["a"])) == "max_patterns=0 does not allow 1 more than 0"
    assert not Limits(PoolConfig(max_patterns=1)).any  # which nobody who has no pattern has to ask


def test_looking_takes_nothing() -> None:
    limits = Limits(ALL)
    for _ in range(10):
        assert limits.exceeded(limits.keys("::1", "ann", ["news"])) is None
    assert limits.taken() == {}


def test_what_was_given_back_leaves_no_trace() -> None:
    limits = Limits(ALL)
    keys = limits.keys("::1", "ann", ["a", "b"])
    limits.take(keys)
    limits.take(keys)
    assert limits.taken() == dict.fromkeys(keys, 2)
    limits.give(keys)
    limits.give(keys)
    assert limits.taken() == {}


def test_the_counts_handed_out_are_a_copy() -> None:
    limits = Limits(ALL)
    limits.taken()["ip", "::1"] = 99
    assert limits.taken() == {}


@given(st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("uv"), st.sets(st.sampled_from("ab"))), max_size=30))
def test_nobody_exceeds_a_limit_and_the_counts_are_those_of_the_admitted(
    requests: list[tuple[str, str, set[str]]],
) -> None:
    limits, admitted = Limits(ALL), []
    for ip, user, topics in requests:
        keys = limits.keys(ip, user, sorted(topics))
        if limits.exceeded(keys) is None:
            limits.take(keys)
            admitted.append(keys)
        count = Counter(key for keys in admitted for key in keys)
        assert limits.taken() == dict(count)
        assert all(taken <= {"ip": 2, "user": 3, "topic": 4}[kind] for (kind, _), taken in count.items())
