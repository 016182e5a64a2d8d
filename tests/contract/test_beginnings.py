"""Where a client begins: each way to say it, in each place where it can be said; who comes back goes on."""

from __future__ import annotations

from typing import Any

import pytest

from live import LiveServer
from live_fixtures import Connect, Start

SETTINGS = {"app": True, "size": 60, "history_events": 100_000}
PLACES = ("header", "last_event_id", "lastEventId", "response")
BEGINNINGS = {
    "earliest": ("1", "2", "3", "4"),
    "latest": ("4",),
    "last=3": ("2", "3", "4"),
    "id": ("3", "4"),
    "": (),
}
ANSWERS, TOKENS = 4, 150


def said(place: str, topic: str, begin: str) -> dict[str, Any]:
    """A stream of a topic that begins there."""
    if place == "header":
        return {"query": {"topic": topic}, "last_event_id": begin}
    if place == "response":
        return {"path": f"/mine/{topic.removeprefix('of/')}", "query": {"begin": begin}}
    return {"query": {"topic": topic, place: begin}}


@pytest.mark.parametrize("begin", BEGINNINGS, ids=lambda begin: begin or "now")
@pytest.mark.parametrize("place", PLACES)
def test_a_client_begins_where_it_says_and_goes_on_where_it_was(
    server: LiveServer, connect: Connect, place: str, begin: str
) -> None:
    topic = f"of/{place} {begin}".replace(" ", "-").replace("=", "-")
    ids = [server.publish(topic, number) for number in (1, 2, 3, 4)]
    server.publish("noise", 0)
    wish = said(place, topic, ids[1] if begin == "id" else begin)
    stream = connect(server, **wish).opened()
    server.publish(topic, 5)
    stream.wait_data(*BEGINNINGS[begin], "5")
    back = stream.last_event_id
    stream.close()
    server.publish(topic, 6)
    server.publish(topic, 7)
    again = connect(server, **{**wish, "last_event_id": back})  # as a browser does, with the URL that it has
    again.wait_data("6", "7")
    assert stream.of_type("ssepool.gap") == again.of_type("ssepool.gap") == []


@pytest.mark.parametrize("begin", ["", "id", "latest", "last=3"], ids=lambda begin: begin or "now")
@pytest.mark.parametrize("place", PLACES)
def test_who_has_had_nothing_comes_back_to_the_place_and_has_missed_nothing(
    server: LiveServer, connect: Connect, place: str, begin: str
) -> None:
    topic = f"of/quiet-{place}-{begin}".replace("=", "-")
    elsewhere = server.publish("noise", 0)
    wish = said(place, topic, elsewhere if begin == "id" else begin)
    stream = connect(server, **wish).opened()
    if begin.startswith("la"):
        stream.until(lambda s: s.of_type("ssepool.empty"))
    back = stream.last_event_id
    assert back
    stream.close()
    server.publish(topic, 1)
    server.publish("noise", 0)
    server.publish(topic, 2)
    again = connect(server, **{**wish, "last_event_id": back})
    again.wait_data("1", "2")
    assert again.of_type("ssepool.gap") == []


def test_late_viewers_of_answers_side_by_side_get_all_of_theirs(start: Start, connect: Connect) -> None:
    server = start(history_events=200, topic_rules=["answers/* events=5000 age=86400"])
    for token in range(TOKENS):
        events = [{"topic": f"answers/{answer}", "data": token} for answer in range(ANSWERS)]
        events += [{"topic": "noise", "data": token}] * 2
        assert server.request("POST", "/events", events)[0] == 201
    for answer in range(ANSWERS):
        stream = connect(server, f"answers/{answer}", query={"last_event_id": "earliest"})
        stream.wait_data(*map(str, range(TOKENS)))
        assert stream.of_type("ssepool.gap") == []
    noise = connect(server, "noise", query={"last_event_id": "earliest"}).opened()  # which has had to go
    noise.until(lambda s: s.data[-1:] == [str(TOKENS - 1)])
    assert len(noise.data) <= 200
