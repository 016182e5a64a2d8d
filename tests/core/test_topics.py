"""Topics, patterns, subscriptions, and the index held against asking every subscription."""

from __future__ import annotations

import copy
import gc
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urlpattern import URLPattern

from ssepool.core import topics
from ssepool.core.topics import Pattern, Subscription, TopicIndex, check_topic
from ssepool.errors import InvalidTopic


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Every run of a pattern over a topic during the test, in order."""
    matches, seen = Pattern.matches, []

    def counted(pattern: Pattern, topic: str) -> bool:
        seen.append((pattern.text, topic))
        return matches(pattern, topic)

    monkeypatch.setattr(Pattern, "matches", counted)
    return seen


class TestCheckTopic:
    @pytest.mark.parametrize(
        "name",
        [
            *("a", "orders/42", "a b", "ünï/日本", "a//b", "/a/", "v1.2/x", "...", "a/...", "a/.b", "100%"),
            *("https://e.com/a?b#c", "x" * 1024, "\u2028", "\u00a0", "\N{GRINNING FACE}"),
        ],
    )
    def test_returns_what_is_a_topic(self, name: str) -> None:
        assert check_topic(name) == name

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("", r"topic '' is empty; it takes 1 to 1024"),
            ("x" * 1025, r"topic 'xxx.*' has 1025 characters; it takes 1 to 1024"),
            ("a\nb", r"topic 'a\\nb' is not allowed: U\+000A at position 1"),
            ("\0", r"U\+0000 at position 0"),
            ("a\x7f", r"U\+007F at position 1"),
            ("a\x85", r"U\+0085 at position 1"),
            ("a\ud800", r"U\+D800 at position 1"),
            (17, r"topic 17 is not allowed: it takes a string, not int"),
            (None, r"topic None is not allowed"),
            (b"a", r"topic b'a' is not allowed"),
        ],
    )
    def test_refuses_with_a_reason(self, name: Any, message: str) -> None:
        with pytest.raises(InvalidTopic, match=message):
            check_topic(name)

    @pytest.mark.parametrize(
        "name",
        [
            *(".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "a\\..\\b", "a/%2e%2E/b", "a/.%2e", "%2E"),
            *("https://e.com/..?q", "https://e.com/.#f"),
        ],
    )
    def test_refuses_segments_that_a_url_parser_resolves(self, name: str) -> None:
        with pytest.raises(InvalidTopic, match=r"no segment of its path may be '\.' or '\.\.'"):
            check_topic(name)


class TestPattern:
    @pytest.mark.parametrize(
        ("text", "topic", "matches"),
        [
            ("orders/:id", "orders/42", True),
            ("orders/:id", "orders/42/lines", False),
            ("orders/:id", "orders/", False),
            ("orders/:id", "/orders/42", False),
            ("orders/:id", "ORDERS/42", False),
            ("orders/:id?", "orders", True),
            ("orders/*", "orders/42/lines", True),
            ("orders/*", "orders", False),
            ("orders{/:id}?", "orders", True),
            ("orders/(\\d+)", "orders/42", True),
            ("orders/(\\d+)", "orders/x", False),
            (":a/:b", "orders/42", True),
            ("/:id", "/42", True),
            ("ünï/:id", "ünï/42", True),
            ("a/b/:id", "a\\b/42", True),
            ("*", "anything at all", True),
            ("*", "https://example.com/orders/42", True),
            ("orders/42", "orders/42", True),
            ("https://example.com/orders/:id", "https://example.com/orders/42", True),
            ("https://example.com/orders/:id", "http://example.com/orders/42", False),
            ("https://example.com/orders/:id", "orders/42", False),
            ("http{s}?://*.example.com/*", "https://shop.example.com/orders/42", True),
            ("*://*/orders/:id", "ssh://host/orders/42", True),
            ("https://example.com/*", "https://[", False),
        ],
    )
    def test_matches(self, text: str, topic: str, matches: bool) -> None:
        assert Pattern(text).matches(topic) is matches

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"pattern '' is empty; it takes 1 to 1024"),
            ("x" * 1025, r"has 1025 characters"),
            ("a\n", r"U\+000A at position 1"),
            ("\ud800", r"U\+D800 at position 0"),
            ("orders/(", r"pattern 'orders/\(' is not a URL Pattern: .*"),
            ("orders/:", r"is not a URL Pattern"),
            ("{a", r"is not a URL Pattern"),
            ("https://exa mple/", r"is not a URL Pattern"),
            ("*" * 33, r"pattern '\*.*' has 33 of '\*', ':' and '\('; it takes 32"),
            (5, r"pattern 5 is not allowed: it takes a string, not int"),
            (["a"], r"pattern \['a'\] is not allowed: it takes a string, not list"),
        ],
    )
    def test_refuses_with_a_reason(self, text: Any, message: str) -> None:
        with pytest.raises(InvalidTopic, match=message):
            Pattern(text).compile()

    def test_is_equal_whatever_its_groups_are_called(self) -> None:
        pattern = Pattern("rooms/:room/*")
        for text in ("rooms/:room/*", "rooms/:id/*", "rooms/:n0/*"):
            assert Pattern(text) == pattern
            assert hash(Pattern(text)) == hash(pattern)
            assert Pattern(text).text == text
        assert pattern == copy.deepcopy(pattern) == pickle.loads(pickle.dumps(pattern))

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("rooms/:id", "rooms/*"),
            (":a/:b", ":a-:b"),
            ("a\\:x", "a\\:y"),
            ("a/(?:x)", "a/(?:y)"),
            ("https://:x.example/", "https://:y.example/"),
            (":aé", ":bé"),
        ],
    )
    def test_is_another_where_more_than_names_may_differ(self, one: str, other: str) -> None:
        assert Pattern(one) != Pattern(other)
        assert Pattern(one) != one

    def test_is_compiled_once_for_all_that_are_equal(self, compiled: list[Any]) -> None:
        assert [Pattern(f"once/:name{n}").matches("once/1") for n in range(3)] == [True] * 3
        assert len(compiled) == 1

    def test_is_not_compiled_before_it_has_to_be(self, compiled: list[Any]) -> None:
        pattern = Subscription.of(patterns=["lazy/:id"], compiled=False).patterns
        assert [one.text for one in pattern] == ["lazy/:id"]
        assert compiled == []
        Subscription.of(patterns=["lazy/:id"])
        assert len(compiled) == 1

    def test_that_comes_and_goes_is_kept_for_a_while(
        self, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(topics, "MAX_KEPT_PROGRAMS", 2)
        monkeypatch.setattr(topics._Program, "_kept", {})
        for text in ("goes/1/*", "goes/2/*", "goes/1/*", "goes/3/*", "goes/1/*"):
            Pattern(text).compile()
            gc.collect()
        assert compiled == [{"pathname": f"goes/{n}/*"} for n in (1, 2, 3)]
        assert list(topics._Program._kept) == ["goes/3/*", "goes/1/*"]
        assert "goes/2/*" not in topics._Program._alive

    def test_in_use_is_compiled_once_however_many_others_come(
        self, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(topics, "MAX_KEPT_PROGRAMS", 1)
        used = Subscription.of(patterns=["used/:id"])
        Pattern("other/:id").compile()
        assert Subscription.of(patterns=["used/:name"]) == used
        assert len(compiled) == 2

    @pytest.mark.parametrize(
        ("text", "has"),
        [
            *(("a/(b)", True), ("(", True), ("\\\\(b)", True), (":id(\\d+)", True), ("*://(a)/", True)),
            *(("a/:id{/*}?", False), ("a\\(b\\)", False), ("", False)),
        ],
    )
    def test_has_a_regular_expression(self, text: str, has: bool, compiled: list[Any]) -> None:
        assert topics.has_regexp(text) is has
        assert compiled == []

    @given(
        st.lists(
            st.sampled_from(["a", "b", "/", "//", ":x", "*", "{/a}?", "-", ".", "\\\\", "%41", "é", "(b+)", " "])
            | st.sampled_from([":y", ":z1", ":$", ":1", "$", "_", "{", "}", "+", "?", "²"])
        ),
        st.text(st.sampled_from("ab/\\-. %41é"), min_size=1, max_size=8),
    )
    def test_never_differs_from_the_url_pattern_itself(self, parts: list[str], topic: str) -> None:
        text = "".join(parts)
        try:
            pattern, topic = Pattern(text), check_topic(topic)
        except InvalidTopic:
            return
        try:
            expected = URLPattern({"pathname": text}).test({"pathname": topic})
        except ValueError:
            with pytest.raises(InvalidTopic):
                pattern.compile()
        else:
            assert pattern.matches(topic) == expected


class TestSubscription:
    def test_is_equal_by_value(self) -> None:
        one = Subscription.of(["a", "b", "a"], ["c/:id"])
        assert one == Subscription.of(("b", "a"), ["c/:id"])
        assert hash(one) == hash(Subscription.of(("b", "a"), ["c/:id"]))
        assert one != Subscription.of(["a", "b"], ["c/:id"], private=True)
        assert one != Subscription.of(["a", "b"])

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Subscription.of(["a"]).private = True  # type: ignore[misc]

    def test_keys_are_all_its_names_sorted(self) -> None:
        assert Subscription.of(["b", "a"], ["*", "c/:id"]).keys == ("*", "a", "b", "c/:id")
        assert Subscription.of(["*"], ["*"]).keys == ("*",)

    def test_takes_iterators(self) -> None:
        assert Subscription.of(iter(["a"]), iter(["*"])).keys == ("*", "a")

    @pytest.mark.parametrize(
        ("topics", "patterns", "message"),
        [
            ([], [], r"0 topics and 0 patterns; it takes 1 to 100 names in all"),
            ([str(n) for n in range(60)], [str(n) for n in range(41)], r"60 topics and 41 patterns"),
            (["a", ""], [], r"topic '' is empty"),
            (["a", "x" * 1025], [], r"has 1025 characters"),
            ([], ["("], r"pattern '\(' is not a URL Pattern"),
            ("abc", [], r"topics 'abc' is one string; it takes a list of them"),
            ([], "abc", r"patterns 'abc' is one string"),
            ([17], [], r"topic 17 is not allowed"),
        ],
    )
    def test_refuses_with_a_reason(self, topics: Any, patterns: Any, message: str) -> None:
        with pytest.raises(InvalidTopic, match=message):
            Subscription.of(topics, patterns)

    def test_most_is_the_callers(self) -> None:
        assert len(Subscription.of(map(str, range(150)), max_names=150).topics) == 150
        with pytest.raises(InvalidTopic, match=r"2 topics and 0 patterns; it takes 1 to 1 names"):
            Subscription.of(["a", "b"], max_names=1)

    def test_matches_any_topic_of_an_event(self) -> None:
        subscription = Subscription.of(["a"], ["b/:id"])
        assert subscription.matches(["x", "a"], private=False)
        assert subscription.matches(iter(["x", "b/1"]), private=False)
        assert not subscription.matches(["b", "a/1", "A"], private=False)
        assert not subscription.matches([], private=False)

    def test_private_events_need_the_right(self) -> None:
        assert not Subscription.of(["a"]).matches(["a"], private=True)
        assert Subscription.of(["a"], private=True).matches(["a"], private=True)
        assert Subscription.of(["a"], private=True).matches(["a"], private=False)


class TestTopicIndex:
    def test_finds_each_feed_once(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        index.add(Subscription.of(["a", "b"], ["*", ":x"]), "feed")
        assert index.match(["a", "b", "c"], private=False) == ["feed"]

    def test_exact_names_are_exact(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        index.add(Subscription.of(["orders/:id", "a*"]), "feed")
        assert index.match(["orders/1", "ab", "a", "orders", "ORDERS/:ID"], private=False) == []
        assert index.match(["orders/:id"], private=False) == ["feed"]

    def test_private_events_go_to_those_with_the_right(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        for private in (False, True):
            index.add(Subscription.of(["a"], private=private), f"topic {private}")
            index.add(Subscription.of(patterns=["*"], private=private), f"pattern {private}")
        assert sorted(index.match(["a"], private=True)) == ["pattern True", "topic True"]
        assert len(index.match(["a"], private=False)) == 4

    def test_exact_topic_looks_at_no_other_feed(self, runs: list[tuple[str, str]]) -> None:
        class Untouchable:
            """A feed that fails when it is hashed once it has been added."""

            added = False

            def __hash__(self) -> int:
                assert not self.added
                return 7

        index: TopicIndex[object] = TopicIndex()
        for number in range(1000):
            feed = Untouchable()
            index.add(Subscription.of([f"other/{number}"]), feed)
            feed.added = True
        index.add(Subscription.of(["mine"]), "feed")
        assert index.match(["mine"], private=False) == ["feed"]
        assert runs == []

    def test_patterns_run_once_a_topic(self, runs: list[tuple[str, str]]) -> None:
        index: TopicIndex[str] = TopicIndex()
        index.add(Subscription.of(["a"], ["*", "a/:id"]), "one")
        index.add(Subscription.of(patterns=["*"]), "two")
        for _ in range(3):
            assert sorted(index.match(["a"], private=False)) == ["one", "two"]
        assert runs == [("*", "a")]  # the other one has a slash more

    def test_patterns_that_differ_in_names_run_as_one(self, runs: list[tuple[str, str]]) -> None:
        index: TopicIndex[int] = TopicIndex()
        for number in range(100):
            index.add(Subscription.of(patterns=[f":x{number}/*"]), number)
        assert len(index.match(["a/b"], private=False)) == 100
        assert runs == [(":x0/*", "a/b")]
        index.discard(Subscription.of(patterns=[":x0/*"]), 0)
        assert len(index.match(["a/b"], private=False)) == 99

    def test_patterns_that_end_otherwise_or_have_other_slashes_do_not_run(self, runs: list[tuple[str, str]]) -> None:
        index: TopicIndex[int] = TopicIndex()
        for number in range(500):
            index.add(Subscription.of(patterns=[f"same/:x/{number}"]), number)
            index.add(
                Subscription.of(patterns=["same" + "".join(f"/:x{n}" for n in range(number % 20 + 3))]), 1000 + number
            )
        assert index.match(["same/1/7"], private=False) == [7]
        assert runs == [("same/:x/7", "same/1/7")]

    @given(
        st.lists(
            st.sampled_from(["a", "bc", "/", "*", ":x", ":y?", ":z+", "{/a}?", "{bc}", "-", "é", "\\a", "1"]),
            max_size=6,
        ),
        st.lists(
            st.sampled_from(["a", "bc", "/", "-", "é", "%41", "A9", "1", " ", "?", "#", "\\", "~"]),
            min_size=1,
            max_size=6,
        ),
    )
    def test_the_index_finds_what_the_patterns_match(self, pattern: list[str], topic: list[str]) -> None:
        text, name = "".join(pattern), "".join(topic)
        try:
            subscription = Subscription.of(patterns=[text])
        except InvalidTopic:
            return
        index: TopicIndex[int] = TopicIndex()
        index.add(subscription, 1)
        assert index.match([name], private=False) == [1] * Pattern(text).matches(name)

    def test_patterns_that_begin_otherwise_do_not_run(self, runs: list[tuple[str, str]]) -> None:
        index: TopicIndex[int] = TopicIndex()
        for number in range(1000):
            index.add(Subscription.of(patterns=[f"other/{number}/*"]), number)
        index.add(Subscription.of(patterns=["https://*"]), 1000)
        index.add(Subscription.of(patterns=["mine/*"]), 1001)
        assert index.match(["mine/1"], private=False) == [1001]
        assert runs == [("mine/*", "mine/1")]

    @pytest.mark.parametrize(
        ("text", "topic"),
        [
            ("*", "a"),
            ("a{/:id}?", "a"),
            ("a/*", "a\\b"),
            ("x" * 100 + "/*", "x" * 100 + "/1"),
            ("https://e.com/*", "https://e.com/a"),
        ],
    )
    def test_patterns_are_found_by_what_they_begin_with(self, text: str, topic: str) -> None:
        index: TopicIndex[str] = TopicIndex()
        index.add(Subscription.of(patterns=[text]), "feed")
        assert index.match([topic], private=False) == ["feed"]
        index.discard(Subscription.of(patterns=[text]), "feed")
        assert index.match([topic], private=False) == []
        assert index._beginnings == {}

    def test_new_pattern_runs_alone_over_topics_known_before(self, runs: list[tuple[str, str]]) -> None:
        index: TopicIndex[str] = TopicIndex()
        index.add(Subscription.of(patterns=["*"]), "one")
        index.match(["a"], private=False)
        index.add(Subscription.of(patterns=[":x"]), "two")
        assert sorted(index.match(["a"], private=False)) == ["one", "two"]
        assert runs == [("*", "a"), (":x", "a")]

    def test_pattern_that_left_and_came_back_is_found(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        subscription = Subscription.of(["a"], ["*"])
        for _ in range(3):
            index.add(subscription, "feed")
            assert index.match(["a"], private=False) == index.match(["b"], private=False) == ["feed"]
            index.discard(subscription, "feed")
            assert index.match(["a"], private=False) == index.match(["b"], private=False) == []

    def test_discarding_one_feed_leaves_the_others(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        for feed in ("one", "two"):
            index.add(Subscription.of(["a"], ["*"]), feed)
        index.discard(Subscription.of(["a"], ["*"]), "one")
        index.discard(Subscription.of(["a", "never added"], ["*", "never/:added"]), "one")
        assert index.match(["a", "b"], private=False) == ["two"]

    def test_keeps_nothing_of_those_that_left(self) -> None:
        index: TopicIndex[str] = TopicIndex()
        subscription = Subscription.of(["a"], ["*"])
        index.add(subscription, "feed")
        index.match(["a"], private=False)
        index.discard(subscription, "feed")
        assert index._exact == index._groups == {}
        assert not any(matches.groups for matches in index._matches.values())

    def test_cache_is_bounded_and_lets_go_of_what_was_used_longest_ago(
        self, monkeypatch: pytest.MonkeyPatch, runs: list[tuple[str, str]]
    ) -> None:
        monkeypatch.setattr(topics, "MAX_CACHED_TOPICS", 3)
        index: TopicIndex[str] = TopicIndex()
        subscription = Subscription.of(patterns=["*"])
        index.add(subscription, "feed")
        for topic in ("often", "b", "c", "often", "d", "often", "e", "f"):
            assert index.match([topic], private=False) == ["feed"]
        assert list(index._matches) == ["often", "e", "f"]
        assert [topic for _, topic in runs] == ["often", "b", "c", "d", "e", "f"]
        assert next(iter(index._groups.values())).topics == {"often", "e", "f"}
        index.discard(subscription, "feed")
        assert index.match(["b"], private=False) == []

    def test_what_is_remembered_of_many_patterns_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(topics, "MAX_CACHED_MATCHES", 10)
        index: TopicIndex[int] = TopicIndex()
        wanted = [Subscription.of(patterns=["*" + "{z}?" * number]) for number in range(4)]
        for feed, subscription in enumerate(wanted):
            index.add(subscription, feed)
        for topic in ("a", "b", "c", "a"):
            assert len(index.match([topic], private=False)) == 4
        assert list(index._matches) == ["c", "a"]
        assert index._cached == 8
        for feed, subscription in enumerate(wanted):
            index.discard(subscription, feed)
        assert index._cached == 0


names = st.sampled_from(["a", "b", "a/1", "a/2", "b/1", "a\\1", "https://e.com/a"])
wild = st.sampled_from(["*", "a/*", "a/:id", "a/:name", ":x/:y", "b", "https://*/a"])
subscriptions = st.builds(Subscription.of, st.sets(names, min_size=1), st.sets(wild), st.booleans()) | st.builds(
    Subscription.of, st.just(()), st.sets(wild, min_size=1), st.booleans()
)
steps = st.one_of(
    st.tuples(st.just("add"), subscriptions),
    st.tuples(st.just("discard"), st.integers(0, 20)),
    st.tuples(st.just("match"), st.tuples(st.lists(names, max_size=3), st.booleans())),
)


@given(st.lists(steps, max_size=60))
def test_index_agrees_with_asking_every_subscription(steps: list[tuple[str, Any]]) -> None:
    index: TopicIndex[int] = TopicIndex()
    model: dict[int, Subscription] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "MAX_CACHED_TOPICS", 3)
        for feed, (step, argument) in enumerate(steps):
            if step == "add":
                model[feed] = argument
                index.add(argument, feed)
            elif step == "discard" and model:
                gone = list(model)[argument % len(model)]
                index.discard(model.pop(gone), gone)
            elif step == "match":
                found = index.match(*argument)
                assert len(found) == len(set(found))
                assert set(found) == {feed for feed, one in model.items() if one.matches(*argument)}


def test_values_in_messages_are_shortened() -> None:
    for check in (check_topic, Pattern):
        with pytest.raises(InvalidTopic) as refused:
            check("x" * 1_000_000)
        assert re.search(r"'x+\.\.\.x+' has 1000000 characters", str(refused.value))
        assert len(str(refused.value)) < 250
