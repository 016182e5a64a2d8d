"""Matcher: answers as the subscription does, and asks each pattern once for a topic."""

from __future__ import annotations

import gc

import pytest

from ssepool.core import matcher as matcher_module
from ssepool.core.matcher import Matcher
from ssepool.core.topics import Pattern, Subscription

TEN = Subscription.of(["exact"], [f"*/{number}" for number in range(10)])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    topics: list[str] = []
    matches = Pattern.matches

    def ask(self: Pattern, topic: str) -> bool:
        topics.append(topic)
        return matches(self, topic)

    monkeypatch.setattr(Pattern, "matches", ask)
    return topics


def test_it_answers_as_the_subscription_does() -> None:
    for subscription in (TEN, Subscription.of(["exact"], ["a/*"], private=True)):
        subject = Matcher(subscription)
        for topics in (("exact",), ("a/3",), ("a/11",), ("b", "a/3"), ("b", "c"), ()):
            for private in (False, True, False):
                assert subject.matches(topics, private) == subscription.matches(topics, private)


def test_ten_patterns_over_ten_thousand_events_of_ten_topics_are_asked_a_hundred_times(asked: list[str]) -> None:
    subject = Matcher(TEN)
    assert not any(subject.matches((f"none/a{number % 10}",), False) for number in range(10_000))
    assert len(asked) == 100


def test_equal_subscriptions_share_one_for_as_long_as_somebody_has_it(asked: list[str]) -> None:
    first = Matcher.of(TEN)
    first.matches(("none/x",), False)
    again = Matcher.of(Subscription.of(["exact"], [f"*/{number}" for number in range(10)]))
    again.matches(("none/x",), False)
    assert again is first
    assert len(asked) == 10
    assert Matcher.of(Subscription.of(["exact"], ["*/0"])) is not first
    del first, again
    gc.collect()
    assert TEN not in Matcher._alive


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher_module, "MAX_KNOWN_TOPICS", 3)
    subject = Matcher(TEN)
    for number in range(10):
        assert subject.matches((f"x/{number}",), False)
    assert list(subject._known) == ["x/7", "x/8", "x/9"]
