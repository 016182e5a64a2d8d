"""What may be measured: plans, targets and the blanks in requests."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from ssepool.bench.plan import Plan
from ssepool.bench.target import SOURCE_ADDRESSES, Target, Template
from ssepool.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"subscribers": 0}, "Plan.subscribers = 0 is not allowed; it takes a number, from 1 to 1e+06"),
        ({"rate": -1}, "Plan.rate = -1 is not allowed; it takes a number, at least 0"),
        ({"rate": math.nan}, "Plan.rate = nan"),
        ({"rate": math.inf}, "Plan.rate = inf"),
        ({"seconds": 1e9}, "Plan.seconds"),
        ({"stall": 1.5}, "Plan.stall = 1.5 is not allowed; it takes a number, from 0 to 1"),
        ({"lanes": 65}, "Plan.lanes"),
        ({"headers": ("nonsense",)}, "'nonsense' is not a header field"),
        ({"headers": ("A: b\r\nC: d",)}, "is not a header field"),
        ({"subscribe_headers": ("A: {n}",)}, "'A: {n}' has a blank that is for events alone"),
        ({"subscribe": "http://127.0.0.1/{t}"}, "has a blank that is for events alone"),
        ({"last_event_id": "a\nb"}, "the last event id 'a\\nb' cannot stand in a request"),
        ({"method": "PO ST"}, "'PO ST' is not a method"),
        ({"body": "x"}, "neither the body 'x' nor the URL has {data}"),
        ({"body": "x", "publish": "http://127.0.0.1/{data}", "batch": 2}, "so there are no batches"),
        ({"idle": True, "replay": 1}, "either idle or a replay"),
        ({"replay": 5, "topics": 0}, "a replay is of one topic"),
        ({"replay": 5, "stall": 0.5}, "nobody stalls"),
    ],
)
def test_what_is_not_allowed_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(**values)
    assert message in str(caught.value)


def test_an_idle_plan_needs_nothing_to_publish() -> None:
    assert Plan(idle=True, body="x").idle


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, ("Content-Type: application/json",)),
        ({"batch": 2}, ("Content-Type: application/x-ndjson",)),
        ({"batch": 2, "batch_start": "[", "batch_join": ","}, ("Content-Type: application/json",)),
        ({"headers": ("content-type: a/b",)}, ("content-type: a/b",)),
        ({"headers": ("A: b",)}, ("A: b", "Content-Type: application/json")),
    ],
)
def test_the_media_type_is_that_of_the_body(values: dict[str, Any], fields: tuple[str, ...]) -> None:
    assert Plan(**values).publish_headers == fields


def test_each_subscriber_may_have_a_topic_of_its_own() -> None:
    assert [Plan(subscribers=7, topics=topics).topic_count for topics in (0, 1, 3)] == [7, 1, 3]


# Targets


def test_a_url_is_taken_apart() -> None:
    target = Target.of("http://127.0.0.1:8000/a/{i}?b=%20&c={i}", remote=False)
    assert target.address == ("127.0.0.1", 8000)
    assert target.head("GET", ["A: b"]) == "GET /a/{i}?b=%20&c={i} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nA: b\r\n"
    assert Target.of("http://127.0.0.1", remote=False).address == ("127.0.0.1", 80)
    assert Target.of("http://127.0.0.1?a=b", remote=False).path == "/?a=b"


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@127.0.0.1/",
        "https://127.0.0.1/",
        "127.0.0.1:80",
        "http:///a",
        "http://127.0.0.1:x/",
        "http://127.0.0.1/a b",
        "http://a\r\n/",
    ],
)
def test_what_is_not_a_url_to_measure_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL to measure"):
        Target.of(url, remote=True)


def test_other_machines_are_measured_only_if_that_is_said() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 of 'http://192\.0\.2\.1/' is not this machine; --remote"):
        Target.of("http://192.0.2.1/", remote=False)
    target = Target.of("http://192.0.2.1/", remote=True)
    assert not target.is_loopback and target.sources == ()


def test_a_name_that_means_this_machine_and_another_is_this_machine_only_where_it_goes_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(ConfigError, match="is not this machine"):
        Target.of("http://localhost/", remote=False)


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigError, match="nowhere of 'http://nowhere/' is not known: Name or service"):
        Target.of("http://nowhere/", remote=True)


def test_within_this_machine_there_are_several_addresses_to_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert Target.of("http://127.0.0.1/", remote=False).sources == SOURCE_ADDRESSES
    monkeypatch.setattr("sys.platform", "darwin")
    assert Target.of("http://127.0.0.1/", remote=False).sources == ()


def test_an_address_may_be_of_the_newer_family() -> None:
    target = Target.of("http://[::1]:8000/a", remote=False)
    assert (target.family, target.address, target.host) == (socket.AF_INET6, ("::1", 8000), "[::1]:8000")
    assert target.sources == ()


# Blanks


def test_blanks_are_filled_in_and_other_braces_left() -> None:
    template = Template('{"a":"{i}","b":"{data}","c":{n},"{x}":{t}}{i}')
    assert template.blanks == {"{i}", "{data}", "{n}", "{t}"}
    values = {"{i}": b"1", "{data}": b"{n}", "{n}": b"3", "{t}": b"4"}
    assert template.fill(values) == b'{"a":"1","b":"{n}","c":3,"{x}":4}1'
    assert template.fill({**values, "{i}": b"2"}).endswith(b"}2")


def test_text_without_blanks_stays_what_it_is() -> None:
    assert Template("{}{I}é").fill({}) == "{}{I}é".encode()
