"""State topics: of the events of one key the newest is kept, and who comes gets what is there."""

from __future__ import annotations

from typing import Any

from live import LiveServer, Stream
from live_fixtures import Connect

SETTINGS = {"size": 20, "history_events": 1000}


def put(server: LiveServer, topic: str, *rows: tuple[str, str | None], **fields: Any) -> list[str]:
    """Publish rows as a batch, of which those without text are removed, and return the ids."""
    events = [
        {"topic": topic, "key": key, **({"data": text} if text is not None else {"removed": True}), **fields}
        for key, text in rows
    ]
    status, answer = server.request("POST", "/events", events)
    assert status == 201, answer
    ids: list[str] = answer["ids"]
    return ids


def seen(stream: Stream, last: str) -> list[tuple[str, str]]:
    """Types and data up to an event with these data; nothing is told as missed."""
    stream.until(lambda stream: any(event.data == last for event in stream.events))
    found = [(event.type, event.data) for event in stream.events]
    assert "ssepool.gap" not in dict(found)
    return [one for one in found if not one[0].startswith("ssepool.")]


def message(*texts: str) -> list[tuple[str, str]]:
    return [("message", text) for text in texts]


def test_who_begins_gets_each_key_once_and_then_what_is_live(server: LiveServer, connect: Connect) -> None:
    put(server, "table", ("1", "one"), ("2", "two"), ("3", "three"), ("1", "uno"), ("2", None))
    stream = connect(server, "table", query={"last_event_id": "earliest"})
    assert seen(stream, "uno") == message("three", "uno")
    put(server, "table", ("3", None), ("2", "again"), ("2", "end"))
    assert seen(stream, "end") == [*message("three", "uno"), ("removed", "3"), *message("again", "end")]


def test_who_comes_back_gets_what_has_been_removed(server: LiveServer, connect: Connect) -> None:
    ids = put(server, "back", ("1", "one"), ("2", "two"), ("3", "three"))
    put(server, "back", ("2", None), ("3", "drei"), ("1", "uno"), ("1", "eins"))
    stream = connect(server, "back", last_event_id=ids[-1])
    assert seen(stream, "eins") == [("removed", "2"), *message("drei", "eins")]


def test_the_newest_of_a_topic_are_none_that_remove(server: LiveServer, connect: Connect) -> None:
    put(server, "newest", ("1", "one"), ("2", "two"), ("3", "three"), ("2", None), ("3", None))
    put(server, "newest", ("4", "four"), ("4", None))
    stream = connect(server, "newest", query={"last_event_id": "last=2"})
    assert seen(stream, "one") == message("one")


def test_other_topics_are_other_rows_and_private_events_the_same(server: LiveServer, connect: Connect) -> None:
    put(server, "one", ("1", "one"))
    put(server, "other", ("1", "other"))
    put(server, "one", ("1", "mine"), private=True)
    put(server, "one", ("2", "end"))
    stream = connect(server, "one", "other", query={"last_event_id": "earliest"})
    # What has gone is gone also for those who may not see what has come in its place.
    assert [one for one in seen(stream, "end") if one[1] != "mine"] == message("other", "end")
