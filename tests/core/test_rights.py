"""Rights: exact names never act as patterns, and a pattern is covered only where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.core.rights import EVERYTHING, MAX_RIGHTS, NOTHING, Right, Rights, is_path
from ssepool.core.topics import Pattern
from ssepool.errors import InvalidGrant


def pattern(text: str) -> dict[str, str]:
    return {"match": text, "match_type": "urlpattern"}


COVERS = [
    (["room:blue"], "room:blue", True),
    (["room:blue"], "room:red", False),  # which the same text, read as a pattern, would match
    ([pattern("room:blue")], "room:red", True),
    (["orders/:id"], "orders/42", False),
    (["orders/:id"], "orders/:id", True),
    ([pattern("orders/:id")], "orders/42", True),
    ([pattern("orders/:id")], "orders/42/lines", False),
    ([pattern("orders/:id")], "orders", False),
    ([pattern("orders/*")], "orders/42/lines", True),
    ([pattern("orders/*")], "orders", False),
    ([pattern("orders/*")], "orders2/1", False),
    (["*"], "anything/at/all", True),
    (["*"], "ssepool/pool", False),
    ([pattern("*")], "ssepool/pool", False),
    (["ssepool/pool"], "ssepool/pool", False),
    ([pattern("https://example.com/books/:id")], "https://example.com/books/1", True),
    ([pattern("https://example.com/books/:id")], "https://example.org/books/1", False),
    ([], "news", False),
]


@pytest.mark.parametrize(("entries", "topic", "expected"), COVERS)
def test_a_right_covers_the_topics_that_it_names(entries: list[object], topic: str, expected: bool) -> None:
    assert Rights(*entries).cover(topic) is expected  # type: ignore[arg-type]


PATTERNS = [
    ([pattern("orders/:id")], "orders/:id", True),
    ([pattern("orders/:id")], "orders/:other", True),
    ([pattern("orders/:id")], "orders/*", False),
    ([pattern("orders/*")], "orders/*", True),
    ([pattern("orders/*")], "orders/:id", True),
    ([pattern("orders/*")], "orders/:id/lines/:line", True),
    ([pattern("orders/*")], "orders/42/*", True),
    ([pattern("orders/*")], "orders/:id?", False),  # matches "orders", which is not beneath it
    ([pattern("orders/*")], "orders{/:id}?", False),
    ([pattern("orders/*")], "orders*", False),
    ([pattern("orders/*")], "ord:rest", False),
    ([pattern("orders/*")], "*", False),
    ([pattern("orders/:id/*")], "orders/42/*", False),  # it is, but that cannot be seen at a glance
    (["orders/42", "orders/43"], "orders/:id", False),
    (["*"], "*", True),
    ([pattern("*")], "orders/*", False),
    ([], "orders/:id", False),
]


@pytest.mark.parametrize(("entries", "wanted", "expected"), PATTERNS)
def test_a_pattern_is_covered_by_what_covers_all_its_topics(entries: list[object], wanted: str, expected: bool) -> None:
    assert Rights(*entries).cover_pattern(Pattern(wanted)) is expected  # type: ignore[arg-type]


segments = st.one_of(st.sampled_from(["a", "b", "orders", ":x", ":y", "a:z", ":x?", "*", "{b}?", "~", ""]))
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)
topics = st.lists(st.sampled_from(["a", "b", "orders", "c\\d", "é", "%41", "?", "#", "~"]), min_size=1, max_size=5).map(
    "/".join
)


@given(paths, paths, topics)
def test_no_topic_of_a_covered_pattern_is_outside_the_right(right: str, wanted: str, topic: str) -> None:
    try:
        rights, wish = Rights(pattern(right)), Pattern(wanted)
        wish.compile()
    except Exception:
        return
    if rights.cover_pattern(wish) and wish.matches(topic):
        assert rights.cover(topic)


@given(paths)
def test_what_is_called_a_path_is_a_url_pattern(text: str) -> None:
    if is_path(text):
        Pattern(text).compile()


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "a\nb",
        "x" * 1025,
        7,
        None,
        ["a"],
        {},
        {"match": 7},
        {"match": "a", "match_type": "regexp"},
        {"match": "a", "match_type": ["exact"]},
        {"match": "a", "matchtype": "exact"},
        {"match": "(", "match_type": "urlpattern"},
        {"match": ":a/:a", "match_type": "urlpattern"},
        {"match": "", "match_type": "urlpattern"},
    ],
)
def test_one_bad_entry_refuses_all(entry: object) -> None:
    with pytest.raises(InvalidGrant):
        Rights("news", entry)  # type: ignore[arg-type]


def test_there_are_not_too_many() -> None:
    Rights(*map(str, range(MAX_RIGHTS)))
    with pytest.raises(InvalidGrant, match="1001 rights are not allowed; it takes 1000 at most"):
        Rights(*map(str, range(MAX_RIGHTS + 1)))


def test_rights_are_equal_by_value_and_can_be_read_back() -> None:
    rights = Rights("b", "a", pattern("c/:x"))
    assert rights == Rights("a", pattern("c/:x"), "b", "a") and hash(rights) == hash(Rights("a", pattern("c/:x"), "b"))
    assert rights != Rights("a", "b", "c/:x")
    assert list(rights) == [Right("a"), Right("b"), Right("c/:x", "urlpattern")]
    assert Rights(*rights) == rights
    assert repr(rights) == "Rights('a', 'b', 'pattern c/:x')"
    assert rights and not NOTHING and EVERYTHING.everything
