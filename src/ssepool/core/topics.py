"""Topics: exact names, patterns over them, subscriptions, and the index that finds the feeds of an event.

A topic is an opaque name such as `orders/42`, or an absolute URL. A pattern is a WHATWG URL Pattern over such names
(https://urlpattern.spec.whatwg.org).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from operator import attrgetter
from typing import ClassVar, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec
from urlpattern import URLPattern

from ssepool.errors import InvalidTopic

MAX_NAME_CHARACTERS = 1024
"""Characters of a topic or a pattern at most."""

MAX_WILDCARDS = 32
"""Wildcards and groups of a pattern at most: a thousand of them would take 100 MB and 200 ms a match."""

MAX_KEPT_PROGRAMS = 256
"""Compiled patterns that are kept although nobody may need them now, those used last. Each takes 100 KB, some 400."""

MAX_CACHED_TOPICS = 4096
"""Topics for which a `TopicIndex` remembers the patterns that match them."""

MAX_CACHED_MATCHES = 262_144
"""Pairs of a topic and a pattern that a `TopicIndex` remembers: about 40 MB."""

MAX_PREFIX_CHARACTERS = 32
"""Characters of a pattern's beginning by which a `TopicIndex` finds it."""

OWN_TOPICS = "ssepool/"
"""What the names of the hub's own topics begin with. No pattern matches them: a subscription has to name them."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# What a URL parser takes for "." and ".." (URL standard, "single-dot" and "double-dot URL path segment"). It resolves
# them, so that `public/../orders/1` would match a pattern over `orders/` that nobody means by that name.
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])(?:\.|%2e){1,2}(?:[/\\?#]|\Z)", re.IGNORECASE)

_FULL_URL = re.compile(r"[^/]*://")
_WILDCARD = re.compile(r"[*:(]")
_LITERAL = re.compile(r"[A-Za-z0-9_/~-]*")
_ENDING = re.compile(r"(?:\A|[*?+)}]|:[A-Za-z_][A-Za-z0-9_]*)([A-Za-z0-9_/~-]*)\Z")
_NOT_COUNTED = re.compile(r"[*?+(){}\\]")
_NAME = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_NOT_SIMPLE = re.compile(r"[^ -~]|[\\($]|://")
_ESCAPED = re.compile(r"\\.")

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


def has_regexp(text: str) -> bool:
    """Whether a pattern has a regular expression in it, `(...)`. Compiles nothing."""
    return "(" in _ESCAPED.sub("", text)


def _form(text: str) -> str:
    """The text with the names of its groups replaced: what matches the same topics is compiled once."""
    if ":" not in text or _NOT_SIMPLE.search(text):
        return text
    names = _NAME.findall(text)
    if len(set(names)) < len(names):  # not allowed, which the compiler says in its own words
        return text
    numbers = count()
    return _NAME.sub(lambda _: f":n{next(numbers)}", text)


class _Program:
    """A compiled pattern. It takes 100 KB and 300 us, so all patterns of the same form share one."""

    __slots__ = ("__weakref__", "compiled", "prefix", "slashes", "suffix")

    _alive: ClassVar[WeakValueDictionary[str, _Program]] = WeakValueDictionary()
    _kept: ClassVar[dict[str, _Program]] = {}
    """Those used last, the last at the end: a pattern that comes and goes is not compiled each time."""

    def __init__(self, form: str) -> None:
        full = _FULL_URL.match(form) is not None
        self.compiled = URLPattern(form) if full else URLPattern({"pathname": form})
        # The slash before a group belongs to the group and may be optional with it.
        self.prefix = None if full else _LITERAL.match(form)[0].rstrip("/")  # type: ignore[index]
        ending = None if full or "\\" in form else _ENDING.search(form)
        self.suffix = ending[1] if ending else ""
        # A named group takes no slash.
        self.slashes = None if full or _NOT_COUNTED.search(form) else form.count("/")

    @classmethod
    def of(cls, form: str) -> _Program:
        """The one program of a form. Raises `ValueError` or `TypeError` if the form is not a URL Pattern."""
        program = cls._alive.get(form)
        if program is None:
            program = cls._alive[form] = cls(form)
        cls._kept.pop(form, None)
        cls._kept[form] = program
        if len(cls._kept) > MAX_KEPT_PROGRAMS:
            del cls._kept[next(iter(cls._kept))]
        return program


class Pattern:
    """A WHATWG URL Pattern over topic names, equal to every other that differs in the names of its groups alone.

    `scheme://...` is a pattern over topics that are absolute URLs; any other text is matched, as the `pathname`
    component, against the whole of a topic's name. Raises `InvalidTopic` if the text cannot be a pattern; whether it
    is a URL Pattern is known once it has been compiled.
    """

    __slots__ = ("_program", "form", "text")

    def __init__(self, text: str) -> None:
        _check_name("pattern", text)
        if (wildcards := len(_WILDCARD.findall(text))) > MAX_WILDCARDS:
            raise InvalidTopic(f"pattern {shown(text)} has {wildcards} of '*', ':' and '('; it takes {MAX_WILDCARDS}")
        self.text = str.__str__(text)
        """The pattern as it was given."""
        self.form = _form(self.text)
        """The same for all that are equal."""
        self._program: _Program | None = None

    def compile(self) -> _Program:
        """Compile the pattern, unless this was done. Raises `InvalidTopic` if the text is not a URL Pattern."""
        if self._program is None:
            try:
                self._program = _Program.of(self.form)
            except (ValueError, TypeError) as error:
                raise InvalidTopic(f"pattern {shown(self.text)} is not a URL Pattern: {error}") from error
        return self._program

    @property
    def is_compiled(self) -> bool:
        """Whether this was done."""
        return self._program is not None

    @property
    def prefix(self) -> str | None:
        """What every topic that matches begins with, but for backslashes; None: a URL, of which nothing is known."""
        return self.compile().prefix

    def matches(self, topic: str) -> bool:
        """Whether the pattern matches this topic (a name that `check_topic` has passed)."""
        if topic.startswith(OWN_TOPICS):
            return False
        program = self._program or self.compile()
        if program.prefix is None:
            return ":" in topic and program.compiled.test(topic)
        # A look at the beginning costs a fiftieth of a run. URL parsing turns backslashes into slashes.
        if not topic.startswith(program.prefix) and "\\" not in topic:
            return False
        return program.compiled.test({"pathname": topic})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.form == other.form

    def __hash__(self) -> int:
        return hash(self.form)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def __reduce__(self) -> tuple[type[Pattern], tuple[str]]:
        return Pattern, (self.text,)


_text = attrgetter("text")


class Subscription(msgspec.Struct, frozen=True, cache_hash=True):
    """What a client subscribes to, and whether it may see private events. Hashable, equal by value: connections with
    equal subscriptions share a feed."""

    topics: frozenset[str] = frozenset()
    """Exact names."""
    patterns: frozenset[Pattern] = frozenset()
    """Patterns over names."""
    private: bool = False
    """Whether private events belong to it."""
    public_only: frozenset[str | Pattern] = frozenset()
    """The names of which, although `private`, only the public events belong to it."""

    @classmethod
    def of(
        cls,
        topics: Iterable[str] = (),
        patterns: Iterable[str] = (),
        private: bool = False,
        max_names: int = 100,
        *,
        compiled: bool = True,
    ) -> Subscription:
        """A subscription to at least one and at most `max_names` names, topics and patterns together.

        Raises `InvalidTopic` for a name that is not well formed, for none and for too many. Without `compiled` the
        caller may still call `compile`, which finds what is not a URL Pattern.
        """
        for what, names in (("topics", topics), ("patterns", patterns)):
            if isinstance(names, (str, bytes)):
                raise InvalidTopic(f"{what} {shown(names)} is one string; it takes a list of them")
        names, texts = frozenset(topics), frozenset(patterns)
        if not 0 < len(names) + len(texts) <= max_names:
            raise InvalidTopic(f"{len(names)} topics and {len(texts)} patterns; it takes 1 to {max_names} names in all")
        if not texts:  # most have none, and each microsecond counts when all come at once
            return cls(frozenset(map(check_topic, names)), texts, bool(private))  # type: ignore[arg-type]
        # In order, so that of two that are equal every process keeps the same.
        wanted = sorted(map(Pattern, texts), key=_text)
        self = cls(frozenset(map(check_topic, names)), frozenset(wanted), bool(private))
        if compiled:
            self.compile()
        return self

    def compile(self) -> None:
        """Compile the patterns, which is what costs. Raises `InvalidTopic`."""
        for pattern in self.patterns:
            pattern.compile()

    @property
    def is_compiled(self) -> bool:
        """Whether there is nothing left to compile."""
        return all(pattern.is_compiled for pattern in self.patterns)

    @property
    def keys(self) -> tuple[str, ...]:
        """The text of every topic and pattern, sorted."""
        return tuple(sorted({*self.topics, *(pattern.text for pattern in self.patterns)}))

    def matches(self, topics: Iterable[str], private: bool) -> bool:
        """Whether an event of these topics, private or not, belongs to this subscription."""
        names, patterns = self.topics, self.patterns
        if private:
            if not self.private:
                return False
            names, patterns = names - self.public_only, patterns - self.public_only
        return any(topic in names or any(p.matches(topic) for p in patterns) for topic in topics)


F = TypeVar("F")


class _Group(Generic[F]):
    """The feeds of one pattern (the value: may see private events), and the cached topics that it matches."""

    __slots__ = ("feeds", "pattern", "serial", "slashes", "suffix", "topics")

    def __init__(self, pattern: Pattern, serial: int) -> None:
        self.pattern = pattern
        self.suffix = pattern.compile().suffix
        self.slashes = pattern.compile().slashes
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

    Exact topics are looked up. Patterns run once for each topic that begins as they do, and are remembered for the
    topics used last; a pattern that comes later runs once for each of those when it is published to again, and one
    that leaves is forgotten.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[F, bool]] = {}
        self._groups: dict[Pattern, _Group[F]] = {}
        self._beginnings: dict[str | None, dict[Pattern, _Group[F]]] = {}
        """The same groups by what their patterns begin with; under None, those over URLs. The newest is the last."""
        self._matches: dict[str, _Matches[F]] = {}
        self._cached = 0
        """Groups in `_matches`, all topics together."""
        self._serial = 0

    def add(self, subscription: Subscription, feed: F) -> None:
        """Let `feed` be found for the events of `subscription`."""
        private, public_only = subscription.private, subscription.public_only
        for topic in subscription.topics:
            self._exact.setdefault(topic, {})[feed] = private and topic not in public_only
        for pattern in subscription.patterns:
            if pattern not in self._groups:
                self._serial += 1
                group = self._groups[pattern] = _Group[F](pattern, self._serial)
                self._beginnings.setdefault(_beginning(pattern), {})[pattern] = group
            self._groups[pattern].feeds[feed] = private and pattern not in public_only

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
                    self._drop(group)

    def _drop(self, group: _Group[F]) -> None:
        pattern, beginning = group.pattern, _beginning(group.pattern)
        del self._groups[pattern], self._beginnings[beginning][pattern]
        if not self._beginnings[beginning]:
            del self._beginnings[beginning]
        for topic in group.topics:
            del self._matches[topic].groups[group]
        self._cached -= len(group.topics)

    def match(self, topics: Sequence[str], private: bool) -> list[F]:
        """The feeds of an event of these topics, each once; of a private event only those with the right to it."""
        if len(topics) == 1 and not self._groups and topics[0] not in self._exact:
            return []
        found: dict[F, bool] = {}
        for topic in topics:
            if feeds := self._exact.get(topic):
                found.update(_seeing(feeds) if private else feeds)
            if self._groups:
                for group in self._matching(topic):
                    found.update(_seeing(group.feeds) if private else group.feeds)
        return list(found)

    def naming(self, topic: str) -> Collection[F]:
        """The feeds of subscriptions that name a topic."""
        return self._exact.get(topic, ())

    def _matching(self, topic: str) -> Iterable[_Group[F]]:
        matches = self._matches.pop(topic, None) or _Matches[F]()
        self._matches[topic] = matches  # at the end, so that the first is the one used longest ago
        if matches.serial != self._serial:
            # A look at the end costs a twentieth of a run. What URL parsing might rewrite is not looked at.
            plain, slashes = _LITERAL.fullmatch(topic) is not None, topic.count("/")
            for groups in self._candidates(topic):
                for group in reversed(groups.values()):
                    if group.serial <= matches.serial:
                        break
                    if plain and not (topic.endswith(group.suffix) and group.slashes in (None, slashes)):
                        continue
                    if group.pattern.matches(topic):
                        matches.groups[group] = None
                        group.topics.add(topic)
                        self._cached += 1
            matches.serial = self._serial
            self._shrink()
        return matches.groups

    def _candidates(self, topic: str) -> Iterator[dict[Pattern, _Group[F]]]:
        """Groups among which are all that match the topic."""
        if "\\" in topic:  # URL parsing turns backslashes into slashes
            yield self._groups
            return
        found = self._beginnings.get
        if ":" in topic and (groups := found(None)):
            yield groups
        for end in range(min(len(topic), MAX_PREFIX_CHARACTERS) + 1):
            if groups := found(topic[:end]):
                yield groups

    def _shrink(self) -> None:
        matches = self._matches
        while len(matches) > MAX_CACHED_TOPICS or (self._cached > MAX_CACHED_MATCHES and len(matches) > 1):
            oldest = next(iter(matches))
            groups = matches.pop(oldest).groups
            self._cached -= len(groups)
            for group in groups:
                group.topics.discard(oldest)


def _seeing(feeds: dict[F, bool]) -> dict[F, bool]:
    """Those with the right to private events."""
    return {feed: True for feed, may_see in feeds.items() if may_see}


def _beginning(pattern: Pattern) -> str | None:
    prefix = pattern.prefix
    return None if prefix is None else prefix[:MAX_PREFIX_CHARACTERS]
