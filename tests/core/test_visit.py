"""Visits: where a client resumes, what it is recognised by, and whether it has everything."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from ssepool.core.frames import COMPLETED_ID, Dialect
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.topics import Subscription
from ssepool.core.visit import MAX_LAST_ID_CHARACTERS, Visit, requested_id

LONG = "x" * (MAX_LAST_ID_CHARACTERS + 1)
ID = b"last-event-id"


def scope_of(headers: list[tuple[bytes, bytes]], query: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"type": "http", "headers": headers, "query_string": query, **more}


REQUESTS: dict[str, tuple[list[tuple[bytes, bytes]], bytes, str | None]] = {
    "none": ([(b"accept", b"text/event-stream")], b"topic=news", None),
    "header": ([(b"accept", b"*/*"), (ID, b"e-7")], b"", "e-7"),
    "header wins": ([(ID, b"e-7")], b"last_event_id=e-8&lastEventId=e-9", "e-7"),
    "empty header": ([(ID, b"")], b"", None),
    "long header": ([(ID, LONG.encode())], b"", LONG[:-1]),
    "header that is no utf-8": ([(ID, b"e\xff7")], b"", "e\ufffd7"),
    "header in utf-8": ([(ID, "é".encode())], b"", "é"),
    "snake case": ([], b"topic=a&last_event_id=e-8", "e-8"),
    "camel case": ([], b"lastEventId=e-9&topic=a", "e-9"),
    "both spellings": ([], b"lastEventId=e-9&last_event_id=e-8", "e-8"),
    "the polyfill's behind the page's": ([], b"last_event_id=e-8&lastEventId=e-9", "e-9"),
    "the last is empty": ([], b"last_event_id=e-8&lastEventId=", "e-8"),
    "empty header beside a query": ([(ID, b"")], b"last_event_id=e-8", "e-8"),
    "empty header before another": ([(ID, b""), (ID, b"e-7")], b"", "e-7"),
    "twice": ([], b"last_event_id=e-1&last_event_id=e-2", "e-2"),
    "quoted": ([], b"last_event_id=a%2Fb+c", "a/b c"),
    "name quoted": ([], b"%6cast_event_id=e-8", "e-8"),
    "empty query": ([], b"last_event_id=", None),
    "one spelling empty": ([], b"last_event_id=&lastEventId=e-9", "e-9"),
    "long query": ([], b"lastEventId=" + LONG.encode(), LONG[:-1]),
    "query that is no utf-8": ([], b"last_event_id=e%FF7", "e\ufffd7"),
    "query of bare bytes": ([], b"last_event_id=e\xff7", "e\ufffd7"),
    "another parameter": ([], b"not_last_event_id=e-8&blastEventId=e-9", None),
}


@pytest.mark.parametrize(("headers", "query", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_the_id_that_a_request_resumes_from(
    headers: list[tuple[bytes, bytes]], query: bytes, expected: str | None
) -> None:
    assert requested_id(scope_of(headers, query)) == expected


def test_an_empty_id_of_the_application_is_none() -> None:
    # request.query_params.get("last_event_id", "") of a page that has had nothing
    assert Visit.of(scope_of([]), None, STRANGER, last_event_id="").last_event_id is None


def test_a_scope_needs_no_query() -> None:
    assert requested_id({"headers": []}) is None


# What a request says.


def test_a_visit_takes_address_and_id_from_the_scope() -> None:
    subscription = Subscription.of(["news"])
    scope = scope_of([(ID, b"e-7")], client=("192.0.2.1", 4711))
    visit = Visit.of(scope, subscription, Grant(subject="ann"), data={"a": 1})
    assert visit == Visit(
        grant=Grant(subject="ann"), subscription=subscription, ip="192.0.2.1", data={"a": 1}, last_event_id="e-7"
    )


@pytest.mark.parametrize("more", [{}, {"client": None}])
def test_a_server_may_know_no_address(more: dict[str, Any]) -> None:
    assert Visit.of(scope_of([], **more), None, STRANGER).ip is None


@pytest.mark.parametrize(("asked", "expected"), [([(ID, b"e-7")], "e-7"), ([(ID, b"")], "e-1"), ([], "e-1")])
def test_the_id_that_the_application_gives_is_for_a_client_that_names_none(asked: Any, expected: str) -> None:
    assert Visit.of(scope_of(asked), None, STRANGER, last_event_id="e-1").last_event_id == expected


def test_topics_and_patterns_are_limited() -> None:
    assert Visit(grant=STRANGER, subscription=Subscription.of(["b", "a"], ["a/*"])).limited == ("a", "a/*", "b")
    assert Visit(grant=STRANGER).limited == ()


# What it is recognised by.

VISIT = Visit(grant=STRANGER, subscription=Subscription.of(["news"], ["a/*"]), ip="192.0.2.1", data={"a": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"ip": "192.0.2.2"},
        {"ip": None},
        {"grant": Grant(subject="bob")},
        {"data": {"a": 2}},
        {"data": None},
        {"subscription": None},
        {"subscription": Subscription.of(["sport"], ["a/*"])},
        {"subscription": Subscription.of(["news"], ["b/*"])},
        {"subscription": Subscription.of(["news", "a/*"])},  # a topic with the text of the pattern
        {"subscription": Subscription.of(patterns=["news", "a/*"])},
        {"subscription": Subscription.of(["news"], ["a/*"], private=True)},
    ],
)
def test_the_fingerprint_changes_with_each_of_its_parts(change: dict[str, Any]) -> None:
    assert replace(VISIT, **change).fingerprint != VISIT.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"last_event_id": "e-7"},
        {"dialect": Dialect()},
        {"subscription": Subscription.of(["news"], ["a/*"])},  # an equal one
        {"data": {"a": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_changes_with_nothing_else(change: dict[str, Any]) -> None:
    assert replace(VISIT, **change).fingerprint == VISIT.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"ip": "192.0.2.2"}, {"data": None}, {"subscription": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_user_is_recognised_by_nothing_else(change: dict[str, Any]) -> None:
    ann = replace(VISIT, grant=Grant(subject="ann"))
    assert replace(ann, **change).fingerprint == ann.fingerprint
    assert replace(ann, grant=Grant(subject="bob")).fingerprint != ann.fingerprint


def test_the_order_in_which_data_was_written_does_not_matter() -> None:
    assert (
        Visit(grant=STRANGER, data={"a": 1, "b": 2}).fingerprint
        == Visit(grant=STRANGER, data={"b": 2, "a": 1}).fingerprint
    )


def test_parts_of_a_fingerprint_do_not_run_into_each_other() -> None:
    parts = [("a', 'b", "c"), ("a", "b', 'c"), ("a", "b")]
    assert len({Visit(grant=STRANGER, ip=ip, data=data).fingerprint for ip, data in parts}) == 3
    assert Visit(grant=Grant(subject="None")).fingerprint != Visit(grant=STRANGER).fingerprint
    assert Visit(grant=STRANGER, ip="None").fingerprint != Visit(grant=STRANGER).fingerprint
    assert Visit(grant=STRANGER, data="null").fingerprint != Visit(grant=STRANGER).fingerprint


def nested(levels: int) -> Any:
    data: Any = []
    for _ in range(levels):
        data = [data]
    return data


ODD = {
    "nested": nested(100_000),
    "nested in an object": {"a": nested(5000)},
    "a long number": [10**5000],
    "a key that is an object": {(1, 2): 3},
    "half a character": ["\ud800"],
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_data_that_is_no_json_has_a_fingerprint(data: Any) -> None:
    assert len(Visit(grant=STRANGER, data=data).fingerprint) == 32
    assert Visit(grant=STRANGER, data=data).fingerprint != Visit(grant=STRANGER).fingerprint


def test_any_text_has_a_fingerprint() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "\ud800"

    assert len(Visit(grant=Grant(subject="\ud800")).fingerprint) == 32
    assert len(Visit(grant=STRANGER, ip="\ud800", data=Odd()).fingerprint) == 32


# Whether it has everything.


class Over:
    """A source that is over for whoever has seen this id."""

    start = 0
    outcome = None

    def __init__(self, last: str) -> None:
        self.last = last

    def is_over_for(self, last_event_id: str | None) -> bool:
        return last_event_id == self.last


@pytest.mark.parametrize(
    ("last_event_id", "source", "expected"),
    [
        (None, None, False),
        ("e-7", None, False),
        (COMPLETED_ID, None, True),
        (COMPLETED_ID, Over("e-7"), True),
        ("e-7", Over("e-7"), True),
        ("e-6", Over("e-7"), False),
        (None, Over("e-7"), False),
    ],
)
def test_a_client_has_everything_that_has_seen_the_end(last_event_id: str | None, source: Any, expected: bool) -> None:
    assert Visit(grant=STRANGER, last_event_id=last_event_id, source=source).has_everything is expected


def test_data_nested_too_deep_to_be_shown_has_a_fingerprint() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    fingerprint = replace(VISIT, data=deep).fingerprint
    assert fingerprint == replace(VISIT, data=[deep]).fingerprint != VISIT.fingerprint
    while deep:
        [deep] = deep  # to free it whole would recurse, too
