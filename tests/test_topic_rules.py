"""Rules for topics, as settings say them."""

from __future__ import annotations

import pytest

from ssepool import ConfigError, HubConfig
from ssepool.topic_rules import TopicRule, topic_rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("answers/* events=5000 age=86400", TopicRule("answers/*", True, 5000, None, 86400.0)),
        ("prices/* events=1", TopicRule("prices/*", True, 1)),
        ("cursor/* events=0", TopicRule("cursor/*", True, 0)),
        ("room:blue bytes=1000", TopicRule("room:blue", False, None, 1000)),
        ("pattern:orders/:id  age=0.5 events=3", TopicRule("orders/:id", True, 3, None, 0.5)),
        ("a name with spaces events=2", TopicRule("a name with spaces", False, 2)),
        ("events=1 events=2", TopicRule("events=1", False, 2)),
    ],
)
def test_a_rule_is_a_name_and_its_bounds(text: str, rule: TopicRule) -> None:
    assert topic_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "news", "news events", "news events=-1", "news events=1 events=2", "news age=1e3", "news size=3", "events=1"],
)
def test_what_is_no_rule_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="a rule is a topic's name or a pattern") as error:
        HubConfig(topic_rules=(text,))
    assert repr(text) in str(error.value)
