"""Topics: exact names, patterns over them, subscriptions, and the index that finds the feeds of an event.

A topic is an opaque name such as `orders/42`, or an absolute URL. A pattern is a WHATWG URL Pattern over such names
(https://urlpattern.spec.whatwg.org).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec
from urlpattern import URLPattern

from ssepool.errors import InvalidTopic

MAX_NAME_CHARACTERS = 1024
"""Characters of a topic or a pattern at most."""

MAX_WILDCARDS = 32
"""Wildcards and groups of a pattern at most: a thousand of them would take 100 MB and 200 ms a match."""

MAX_CACHED_TOPICS = 4096
"""Topics for which a `TopicIndex` remembers the patterns that match them."""

OWN_TOPICS = "ssepool/"
"""What the names of the hub's own topics begin with. No pattern matches them: a subscription has to name them."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# What a URL parser takes for "." and ".." (URL standard, "single-dot" and "double-dot URL path segment"). It resolves
# them, so that `public/../orders/1` would match a pattern over `orders/` that nobody means by that name.
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])(?:\.|%2e){1,2}(?:[/\\?#]|\Z)", re.IGNORECASE)

_FULL_URL = re.compile(r"[^/]*://")
_WILDCARD = re.compile(r"[*:(]")
_LITERAL = re.compile(r"[A-Za-z0-9_/~-]*")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100


def shown(value: object) -> str:
    """The repr of any value, short enough for a message."""
    try:
        return _short.repr(value)
    except ValueError:  # an int of more than 4300 digits, somewhere in it
        return f"<{type(value).__name__}>"


def check_topic(name: str) -> str:
    """Return `name` if it is a topic: 1 to 1024 characters, no control characters, no lone surrogates, no `.` or `..`
    as a path segment (also not as `%2e`). Raises `InvalidTopic`."""
    # Nearly all names end here: what is printable holds neither control characters nor surrogates.
    if (
        type(name) is str
        and 0 < len(name) <= MAX_NAME_CHARACTERS
        and name.isprintable()
        and "." not in name
        and "%" not in name
    ):
        return name
    _check_name("topic", name)
    if _DOT_SEGMENT.search(name):
        raise InvalidTopic(f"topic {shown(name)} is not allowed: no segment of its path may be '.' or '..'")
    return str.__str__(name)


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str):
        raise InvalidTopic(f"{what} {shown(name)} is not allowed: it takes a string, not {type(name).__name__}")
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        size = f"has {len(name)} characters" if name else "is empty"
        raise InvalidTopic(f"{what} {shown(name)} {size}; it takes 1 to {MAX_NAME_CHARACTERS}")
    if bad := _FORBIDDEN.search(name):
        raise InvalidTopic(
            f"{what} {shown(name)} is not allowed: U+{ord(bad[0]):04X} at position {bad.start()}; "
            "it takes no control characters and no lone surrogates"
        )


class Pattern:
    """A WHATWG URL Pattern over topic names, equal to every other of the same text.

    `scheme://...` is a pattern over topics that are absolute URLs; any other text is matched, as the `pathname`
    component, against the whole of a topic's name. Raises `InvalidTopic` if the text is not a URL Pattern.
    """

    __slots__ = ("__weakref__", "_compiled", "_prefix", "text")

    text: str
    """The pattern as it was given."""
    _compiled: URLPattern
    _prefix: str | None

    # A compiled pattern takes 75 KB and 200 us, so all that use the same text share one object.
    _alive: ClassVar[WeakValueDictionary[str, Pattern]] = WeakValueDictionary()

    def __new__(cls, text: str) -> Pattern:
        known = cls._alive.get(text) if isinstance(text, str) else None
        if known is not None:
            return known
        _check_name("pattern", text)
        if (wildcards := len(_WILDCARD.findall(text))) > MAX_WILDCARDS:
            raise InvalidTopic(f"pattern {shown(text)} has {wildcards} of '*', ':' and '('; it takes {MAX_WILDCARDS}")
        self = super().__new__(cls)
        self.text = str.__str__(text)
        full = _FULL_URL.match(text) is not None
        try:
            self._compiled = URLPattern(self.text) if full else URLPattern({"pathname": self.text})
        except (ValueError, TypeError) as error:
            raise InvalidTopic(f"pattern {shown(text)} is not a URL Pattern: {error}") from error
        # The slash before a group belongs to the group and may be optional with it.
        self._prefix = None if full else _LITERAL.match(text)[0].rstrip("/")  # type: ignore[index]
        return cls._alive.setdefault(self.text, self)

    def matches(self, topic: str) -> bool:
        """Whether the pattern matches this topic (a name that `check_topic` has passed)."""
        if topic.startswith(OWN_TOPICS):
            return False
        if self._prefix is None:
            return ":" in topic and self._compiled.test(topic)
        # A look at the beginning costs a fiftieth of a run. URL parsing turns backslashes into slashes.
        if not topic.startswith(self._prefix) and "\\" not in topic:
            return False
        return self._compiled.test({"pathname": topic})

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def __reduce__(self) -> tuple[type[Pattern], tuple[str]]:
        return Pattern, (self.text,)


class Subscription(msgspec.Struct, frozen=True, cache_hash=True):
    """What a client subscribes to, and whether it may see private events. Hashable, equal by value: connections with
    equal subscriptions share a feed."""

    topics: frozenset[str] = frozenset()
    """Exact names."""
    patterns: frozenset[Pattern] = frozenset()
    """Patterns over names."""
    private: bool = False
    """Whether private events belong to it."""

    @classmethod
    def of(
        cls, topics: Iterable[str] = (), patterns: Iterable[str] = (), private: bool = False, max_names: int = 100
    ) -> Subscription:
        """A subscription to at least one and at most `max_names` names, topics and patterns together.

        Raises `InvalidTopic` for a name that is not well formed, for none and for too many.
        """
        for what, names in (("topics", topics), ("patterns", patterns)):
            if isinstance(names, (str, bytes)):
                raise InvalidTopic(f"{what} {shown(names)} is one string; it takes a list of them")
        # Counted before any is compiled, which is what costs.
        names, texts = frozenset(topics), frozenset(patterns)
        if not 0 < len(names) + len(texts) <= max_names:
            raise InvalidTopic(f"{len(names)} topics and {len(texts)} patterns; it takes 1 to {max_names} names in all")
        return cls(frozenset(map(check_topic, names)), frozenset(map(Pattern, texts)), bool(private))

    @property
    def keys(self) -> tuple[str, ...]:
        """The text of every topic and pattern, sorted."""
        return tuple(sorted({*self.topics, *(pattern.text for pattern in self.patterns)}))

    def matches(self, topics: Iterable[str], private: bool) -> bool:
        """Whether an event of these topics, private or not, belongs to this subscription."""
        if private and not self.private:
            return False
        return any(topic in self.topics or any(p.matches(topic) for p in self.patterns) for topic in topics)


F = TypeVar("F")


class _Group(Generic[F]):
    """The feeds of one pattern (the value: may see private events), and the cached topics that it matches."""

    __slots__ = ("feeds", "pattern", "serial", "topics")

    def __init__(self, pattern: Pattern, serial: int) -> None:
        self.pattern = pattern
        self.serial = serial
        self.feeds: dict[F, bool] = {}
        self.topics: set[str] = set()


class _Matches(Generic[F]):
    """The groups that match one topic, of those up to a serial number."""

    __slots__ = ("groups", "serial")

    def __init__(self) -> None:
        self.serial = 0
        self.groups: dict[_Group[F], None] = {}


class TopicIndex(Generic[F]):
    """Finds the feeds of an event. A feed is any hashable object, added with one subscription.

    Exact topics are looked up. Patterns run once for each topic and are remembered for the topics used last; a pattern
    that comes later runs once for each of those when it is published to again, and one that leaves is forgotten.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[F, bool]] = {}
        self._groups: dict[Pattern, _Group[F]] = {}
        self._matches: dict[str, _Matches[F]] = {}
        self._serial = 0

    def add(self, subscription: Subscription, feed: F) -> None:
        """Let `feed` be found for the events of `subscription`."""
        for topic in subscription.topics:
            self._exact.setdefault(topic, {})[feed] = subscription.private
        for pattern in subscription.patterns:
            if pattern not in self._groups:
                self._serial += 1
                self._groups[pattern] = _Group(pattern, self._serial)
            self._groups[pattern].feeds[feed] = subscription.private

    def discard(self, subscription: Subscription, feed: F) -> None:
        """Undo `add`, if it was done."""
        for topic in subscription.topics:
            if feeds := self._exact.get(topic):
                feeds.pop(feed, None)
                if not feeds:
                    del self._exact[topic]
        for pattern in subscription.patterns:
            if group := self._groups.get(pattern):
                group.feeds.pop(feed, None)
                if not group.feeds:
                    del self._groups[pattern]
                    for topic in group.topics:
                        del self._matches[topic].groups[group]

    def match(self, topics: Sequence[str], private: bool) -> list[F]:
        """The feeds of an event of these topics, each once; of a private event only those with the right to it."""
        if len(topics) == 1 and not self._groups and topics[0] not in self._exact:
            return []
        found: dict[F, bool] = {}
        for topic in topics:
            if feeds := self._exact.get(topic):
                found.update(feeds)
            if self._groups:
                for group in self._matching(topic):
                    found.update(group.feeds)
        return [feed for feed, may_see in found.items() if may_see] if private else list(found)

    def _matching(self, topic: str) -> Iterable[_Group[F]]:
        matches = self._matches.pop(topic, None) or _Matches[F]()
        self._matches[topic] = matches  # at the end, so that the first is the one used longest ago
        if len(self._matches) > MAX_CACHED_TOPICS:
            oldest = next(iter(self._matches))
            for group in self._matches.pop(oldest).groups:
                group.topics.discard(oldest)
        for group in reversed(self._groups.values()):
            if group.serial <= matches.serial:
                break
            if group.pattern.matches(topic):
                matches.groups[group] = None
                group.topics.add(topic)
        matches.serial = self._serial
        return matches.groups
