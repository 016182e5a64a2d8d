"""Rules for topics, as settings say them."""

from __future__ import annotations

import re
from typing import NamedTuple

from ssepool.errors import ConfigError

PATTERN_PREFIX = "pattern:"
"""What an entry of `public_topics` or `topic_rules` that is a pattern begins with."""

_TOPIC_RULE = re.compile(
    r"(\S|\S.*?\S)((?:\s+(?:(?:events|bytes)=[0-9]{1,15}|age=[0-9]{1,12}(?:\.[0-9]{1,9})?))+)", re.ASCII
)


class TopicRule(NamedTuple):
    """A rule of `HubConfig.topic_rules`. What it does not say is as for all topics."""

    match: str
    """The topic's name, or a pattern over names."""
    is_pattern: bool
    """Whether it is a pattern: it has a `*` in it, or `pattern:` in front of it."""
    events: int | None = None
    """Events that are kept at most."""
    bytes: int | None = None
    """Bytes of memory that they take at most."""
    age: float | None = None
    """Seconds that they are kept."""


def topic_rule(text: str) -> TopicRule:
    """The rule that a text of `HubConfig.topic_rules` says. Raises `ConfigError`."""
    found = _TOPIC_RULE.fullmatch(text)
    bounds = dict(bound.split("=") for bound in (found[2].split() if found else ()))
    if found is None or len(bounds) < len(found[2].split()):
        raise ConfigError(
            f"HubConfig.topic_rules has {text!r}, which is not allowed; a rule is a topic's name or a pattern and one "
            "or more of events=NUMBER, bytes=NUMBER and age=SECONDS, each once: 'answers/* events=5000 age=86400'"
        )
    match, events, bytes, age = found[1], bounds.get("events"), bounds.get("bytes"), bounds.get("age")
    return TopicRule(
        match.removeprefix(PATTERN_PREFIX),
        "*" in match or match.startswith(PATTERN_PREFIX),
        None if events is None else int(events),
        None if bytes is None else int(bytes),
        None if age is None else float(age),
    )
