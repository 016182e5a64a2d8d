"""How much of each topic is kept, by the first rule that fits."""

from __future__ import annotations

import math

import pytest

from ssepool import HubConfig, InvalidTopic
from ssepool.core import rules as rules_module
from ssepool.core.rules import Rule, Rules


def test_the_first_rule_that_fits_counts_and_what_it_does_not_say_is_as_for_all() -> None:
    config = HubConfig(
        topic_events=100,
        topic_age=60,
        topic_rules=("answers/1 events=7", "answers/* events=5000 age=86400", "pattern:room/:name bytes=10", "* age=5"),
    )
    rules = Rules.from_config(config)
    assert rules.of("answers/1") == Rule(7, math.inf, 60, True)
    assert rules.of("answers/2") == Rule(5000, math.inf, 86400, True)
    assert rules.of("room/blue") == Rule(100, 10, 60, False)
    assert rules.of("news") == Rule(100, math.inf, 5, False)
    assert rules.is_bound
    assert rules.ages


def test_an_exact_name_never_acts_as_a_pattern() -> None:
    rules = Rules.from_config(HubConfig(topic_rules=("room:blue events=1",)))
    assert rules.of("room:blue").events == 1
    assert rules.of("room:red").events == math.inf


def test_without_rules_everything_is_kept() -> None:
    rules = Rules.from_config(HubConfig())
    assert not rules.is_bound
    assert not rules.ages
    assert rules.of("news") == Rule()


def test_what_is_published_to_live_topics_alone_is_live_only() -> None:
    rules = Rules.from_config(HubConfig(topic_rules=("cursor/* events=0",)))
    assert rules.is_live_only(("cursor/1", "cursor/2"))
    assert not rules.is_live_only(("cursor/1", "news"))
    assert not rules.is_live_only(())


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(InvalidTopic, match="is not a URL Pattern"):
        Rules.from_config(HubConfig(topic_rules=("a/(*) events=1",)))


def test_what_is_remembered_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "MAX_KNOWN_TOPICS", 10)
    rules = Rules.from_config(HubConfig(topic_rules=("a/* events=1",)))
    for number in range(100):
        assert rules.of(f"a/{number}").events == 1
    assert len(rules._known) == 10
