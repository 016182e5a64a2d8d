"""Rights: the topics that somebody may subscribe to, or publish to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec

from ssepool.core.topics import OWN_TOPICS, Pattern, check_topic, shown
from ssepool.errors import InvalidGrant, InvalidTopic

ALL = "*"
"""A right to every topic but those of the hub's own."""

MAX_RIGHTS = 1000
"""Rights to subscribe, or to publish, of one grant at most."""

MatchType = Literal["exact", "urlpattern"]
"""How a right names its topics, in the words of the Mercure protocol: one topic, or all that a URL Pattern matches."""

_FIELDS = frozenset({"match", "match_type"})
_BENEATH = re.compile(r"([A-Za-z0-9_~/-]+/)\*")
"""A pattern of all topics that begin with a path."""
_NAME = re.compile(r":([A-Za-z0-9_]+)")
_PATHS = re.compile(r"(?:[A-Za-z0-9_~-]|/(?!$)|:[A-Za-z_][A-Za-z0-9_]*(?=/|$))+/?")
"""A pattern whose topics all begin with what stands before its first group."""


class Right(msgspec.Struct, frozen=True):
    """One entry: exactly one topic, or all that a URL Pattern matches. `*` as a topic's name stands for all topics."""

    match: str
    """The topic's name, or the pattern."""
    match_type: MatchType = "exact"
    """Which of the two it is. A name never acts as a pattern: `room:blue`, read as one, would match `room:red`."""

    @classmethod
    def of(cls, entry: Right | str | Mapping[str, Any]) -> Right:
        """A right from one of its written forms: a topic's name, or `{"match": ..., "match_type": ...}`.

        Raises `InvalidGrant` for anything else, also for a field that is not known: it would say something that is not
        obeyed.
        """
        if isinstance(entry, Right):
            return entry
        if isinstance(entry, str):
            return cls(entry)
        if not isinstance(entry, Mapping) or "match" not in entry or not _FIELDS.issuperset(entry):
            raise InvalidGrant(f"right {shown(entry)} is not allowed: it takes a topic's name, or match and match_type")
        match, kind = entry["match"], entry.get("match_type", "exact")
        if not isinstance(match, str) or kind not in get_args(MatchType):
            kinds = " or ".join(get_args(MatchType))
            raise InvalidGrant(f"right {shown(entry)} is not allowed: match takes a string, match_type {kinds}")
        return cls(match, kind)


class Rights:
    """Rights together, unchangeable. They never cover the hub's own topics, which are a matter of administration."""

    __slots__ = ("_beneath", "_forms", "_hash", "_patterns", "everything", "names")

    def __init__(self, *entries: Right | str | Mapping[str, Any]) -> None:
        """Of the written forms of `Right`. One entry that is not well formed refuses all: raises `InvalidGrant`."""
        if len(entries) > MAX_RIGHTS:
            raise InvalidGrant(f"{len(entries)} rights are not allowed; it takes {MAX_RIGHTS} at most")
        rights = [Right.of(entry) for entry in entries]
        try:
            names = frozenset(check_topic(right.match) for right in rights if right.match_type == "exact")
            patterns = {Pattern(right.match): None for right in rights if right.match_type == "urlpattern"}
            for pattern in patterns:
                if not is_path(pattern.text):  # a path is a URL Pattern for sure, and compiling is what costs
                    pattern.compile()
        except InvalidTopic as error:
            raise InvalidGrant(f"a right is not allowed: {error}") from error
        self.everything = ALL in names
        """Whether they cover all topics."""
        self.names = names
        """The exact names among them."""
        self._patterns = tuple(patterns)
        self._forms = frozenset(pattern.form for pattern in patterns)
        self._hash = hash((names, self._forms))
        self._beneath = tuple(found[1] for pattern in patterns if (found := _BENEATH.fullmatch(pattern.text)))

    def cover(self, topic: str) -> bool:
        """Whether they cover a topic (a name that `check_topic` has passed)."""
        if topic.startswith(OWN_TOPICS):
            return False
        if self.everything or topic in self.names:
            return True
        return any(pattern.matches(topic) for pattern in self._patterns)

    def cover_pattern(self, pattern: Pattern) -> bool:
        """Whether they cover every topic that a pattern matches, as far as that can be seen: by a right to the same
        pattern, to everything, or to all beneath a path (`orders/*`) under which the pattern stays."""
        if self.everything or pattern.form in self._forms:
            return True
        return bool(self._beneath) and is_path(pattern.text) and _start(pattern.text).startswith(self._beneath)

    def __bool__(self) -> bool:
        return bool(self.names or self._patterns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rights) and (self.names, self._forms) == (other.names, other._forms)

    def __hash__(self) -> int:
        return self._hash

    def __iter__(self) -> Iterator[Right]:
        """The entries: names first, each kind in order."""
        yield from (Right(name) for name in sorted(self.names))
        yield from (Right(text, "urlpattern") for text in sorted(pattern.text for pattern in self._patterns))

    def __repr__(self) -> str:
        written = [right.match if right.match_type == "exact" else f"pattern {right.match}" for right in self]
        return f"Rights({', '.join(map(repr, written))})"


def is_path(text: str) -> bool:
    """Whether a pattern is made of nothing but plain segments, `:name` groups that are whole segments, and perhaps `*`
    as the last one: it is a URL Pattern for sure, and its topics begin with what stands before the first group."""
    if _PATHS.fullmatch(text.removesuffix("/*")) is None or "//" in text:
        return False
    names = _NAME.findall(text)
    return len(set(names)) == len(names)


def _start(text: str) -> str:
    """What all topics of a path pattern begin with."""
    return re.split(r":|\*", text, maxsplit=1)[0]


NOTHING = Rights()
"""No right at all."""
EVERYTHING = Rights(ALL)
"""The right to every topic but the hub's own."""
