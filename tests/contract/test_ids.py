"""Ids that publishers choose, on a real hub: what a stranger does with an id does nothing to those who have it, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, Stream, serve
from live_fixtures import Connect, Start, served

SETTINGS = {"size": 100}


def post(server: LiveServer, *events: dict[str, Any]) -> tuple[int, Any]:
    """Publish a batch: the status, and the ids or the code of the error."""
    status, answer = server.request("POST", "/events", list(events))
    return status, answer["ids"] if status == 201 else answer["error"]["code"]


def order(topic: str, data: str, id: str = "order-42", **fields: Any) -> dict[str, Any]:
    return {"topic": topic, "data": data, "id": id, **fields}


def resume(connect: Connect, server: LiveServer, *topics: str, id: str = "order-42", **kwargs: Any) -> Stream:
    return connect(server, *topics, last_event_id=id, **kwargs)


@pytest.fixture(params=["memory", "sqlite"])
def hub(
    request: pytest.FixtureRequest, start: Start, path: str, streams: list[Stream], tmp_path: Path
) -> Iterator[LiveServer]:
    """A hub of the test's own, with each kind of broker that needs no server."""
    if request.param == "memory":
        yield start(size=20)
    else:  # its file's descriptors come and go, so they are not counted
        with serve(served(path), size=20, broker=f"sqlite:///{tmp_path}/events.db") as server:
            yield server
            for stream in streams:
                stream.close()


def test_a_strangers_id_neither_silences_skips_doubles_nor_delays(hub: LiveServer, connect: Connect) -> None:
    shop, stranger = connect(hub, "shop").opened(), connect(hub, "stranger").opened()
    assert post(hub, order("stranger", "mine now")) == (201, ["order-42"])
    assert post(hub, order("shop", "paid")) == (201, ["order-42"])
    shop.wait_data("paid")
    stranger.wait_data("mine now")
    # Whether somebody else has an id is not to be seen in an answer.
    assert post(hub, order("stranger/2", "x")) == (201, ["order-42"])
    assert post(hub, order("stranger/2", "x", id="nobody-has-this")) == (201, ["nobody-has-this"])
    shop.close()
    assert post(hub, {"topic": "shop", "data": "sent"}, {"topic": "stranger", "data": "next"})[0] == 201
    for start in range(0, 600, 200):
        events = [order(f"stranger/{number}", "x") for number in range(start, start + 200)]
        assert post(hub, *events) == (201, ["order-42"] * 200)
    again, theirs = resume(connect, hub, "shop"), resume(connect, hub, "stranger")
    hub.publish("shop", "delivered")
    again.wait_data("sent", "delivered")
    theirs.wait_data("next")
    assert not again.of_type("ssepool.gap")
    assert not theirs.of_type("ssepool.gap")


def test_a_client_of_both_goes_on_behind_the_first(hub: LiveServer, connect: Connect) -> None:
    hub.publish("shop", "paid", id="order-42")
    hub.publish("shop", "sent")
    hub.publish("stranger", "x", id="order-42")
    hub.publish("shop", "delivered")
    resume(connect, hub, "shop", "stranger").wait_data("sent", "x", "delivered")  # "x" may come again, nothing is lost
    resume(connect, hub, patterns=("sho:rest",)).wait_data("sent", "delivered")


def test_an_id_of_other_topics_is_as_unknown_as_any(hub: LiveServer, connect: Connect) -> None:
    hub.publish("shop", "paid", id="order-42")
    hub.publish("private", "secret", id="hidden", private=True)
    (own,) = post(hub, {"topic": "stranger", "data": "own"})[1]
    for topics, id in ((["stranger"], "order-42"), (["stranger"], "no-such-id"), (["private", "stranger"], "hidden")):
        stream = resume(connect, hub, *topics, id=id).wait_data("own")
        assert stream.of_type("ssepool.gap") == [{"requested": id, "resumed": own, "reason": "unknown_id"}]


def test_an_id_whose_own_event_has_gone_is_a_gap_and_not_a_strangers_place(start: Start, connect: Connect) -> None:
    server = start(history_events=4)
    server.publish("shop", "paid", id="order-42")
    _, delivered = (server.publish("shop", text) for text in ("sent", "delivered"))
    for number in range(3):
        server.publish(f"stranger/{number}", "x", id="order-42")
    stream = resume(connect, server, "shop").wait_data("delivered")
    assert stream.of_type("ssepool.gap") == [{"requested": "order-42", "resumed": delivered, "reason": "expired"}]


def test_a_batch_may_be_published_again_and_never_says_something_else(hub: LiveServer, connect: Connect) -> None:
    stream = connect(hub, "shop").opened()
    batch = [order("shop", str(number), f"order-{number}") for number in range(3)]
    answer = post(hub, *batch)
    assert answer == (201, ["order-0", "order-1", "order-2"])
    assert post(hub, *batch) == answer
    for changed in ({"data": "other"}, {"type": "update"}, {"retry": 1000}, {"private": True}):
        event = {**batch[1], **changed}
        assert post(hub, {"topic": "shop", "data": "all or nothing"}, event) == (409, "id_conflict")
    assert post(hub, order("shop", "x", "new"), order("shop", "y", "new")) == (409, "id_conflict")
    assert post(hub, order("shop", "x", "new"), order("other", "y", "new"), order("shop", "x", "new"))[0] == 201
    hub.publish("shop", "last")
    stream.wait_data("0", "1", "2", "x", "last")
