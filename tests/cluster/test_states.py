"""Topics with two workers: state topics, long answers beside each other, and what `GET /topics` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from live import LiveServer, Stream, serve_command, wait_for

WORKERS, SLOTS = 2, 40
ANSWERS, TOKENS = 4, 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    url = f"sqlite:///{tmp_path_factory.mktemp('states')}/events.db"
    bounds = ("--history-events", "200", "--topic-rules", "answers/* events=5000 age=86400")
    with serve_command("--workers", str(WORKERS), "--pool-size", str(SLOTS), "--broker", url, *bounds) as server:
        yield server


def on_each_worker(server: LiveServer, stack: ExitStack, *topics: str, begin: str = "earliest") -> list[Stream]:
    """As many streams as it takes until each worker has one."""
    server.wait_pool(open=0)
    streams: list[Stream] = []
    while len(streams) < SLOTS // WORKERS + 1:
        streams.append(stack.enter_context(Stream(server, *topics, query={"last_event_id": begin})).opened())
        if all(worker["pool"]["open"] for worker in server.request("GET", "/pool")[1]["workers"]):
            return streams
    raise AssertionError("one worker has all of them")


def publish(server: LiveServer, *events: dict[str, Any]) -> list[str]:
    status, answer = server.request("POST", "/events", list(events))
    assert status == 201, answer
    ids: list[str] = answer["ids"]
    return ids


def row(key: str, data: str | None) -> dict[str, Any]:
    return {"topic": "table", "key": key, **({"removed": True} if data is None else {"data": data})}


def test_who_begins_on_any_worker_gets_each_key_once_and_then_what_is_live(server: LiveServer) -> None:
    # A request of its own each, so that both workers publish rows of the table.
    rows = [("1", "one"), ("2", "two"), ("3", "three"), ("1", "uno"), ("2", None), ("4", "four"), ("4", "quattro")]
    with ExitStack() as stack:
        watching = on_each_worker(server, stack, "table")
        ids = [publish(server, row(key, data))[0] for key, data in rows]
        for stream in watching:  # until no worker is behind
            stream.until(lambda s: s.data[-1:] == ["quattro"])
    with ExitStack() as stack:
        streams = on_each_worker(server, stack, "table")
        for stream in streams:
            stream.wait_data("three", "uno", "quattro")
        publish(server, row("3", None))
        publish(server, row("2", "again"))
        for stream in streams:
            stream.wait_data("three", "uno", "quattro", "3", "again")
            assert [event.type for event in stream.events if event.data == "3"] == ["removed"]
            assert stream.of_type("ssepool.gap") == []
    with ExitStack() as stack:  # an id wins over where it began, on the worker that it came from and on the other
        server.wait_pool(open=0)
        for _ in range(WORKERS):
            stream = stack.enter_context(
                Stream(server, "table", last_event_id=ids[3], query={"last_event_id": "earliest"})
            )
            stream.wait_data("quattro", "3", "again")


def test_late_viewers_of_answers_side_by_side_get_all_of_theirs(server: LiveServer) -> None:
    for token in range(TOKENS):
        publish(server, *({"topic": f"answers/{answer}", "data": token} for answer in range(ANSWERS)))
        publish(server, {"topic": "noise", "data": token}, {"topic": "noise", "data": token})
    for answer in range(ANSWERS):
        with ExitStack() as stack:
            for stream in on_each_worker(server, stack, f"answers/{answer}"):
                stream.wait_data(*map(str, range(TOKENS)))
                assert stream.of_type("ssepool.gap") == []


def test_any_worker_lists_the_topics_of_all(server: LiveServer) -> None:
    publish(server, *({"topic": f"seen/{name}", "data": 1} for name in "abc"))

    def pages(limit: int) -> list[tuple[str, int, int]]:
        found, after = [], ""
        while after is not None:
            status, page = server.request("GET", f"/topics?prefix=seen/&limit={limit}&after={after}")
            assert (status, page["missing"]) == (200, [])
            found += [(topic["topic"], topic["events"], topic["subscribers"]) for topic in page["topics"]]
            after = page["next"]
        return found

    with ExitStack() as stack:
        count = len(on_each_worker(server, stack, "seen/b", "seen/z"))
        expected = [("seen/a", 1, 0), ("seen/b", 1, count), ("seen/c", 1, 0), ("seen/z", 0, count)]
        for limit in (1, 3, 1, 3, 1000):  # each request goes to a worker of its own, and may be the one or the other's
            wait_for(lambda limit=limit: pages(limit) == expected, what=f"{expected} on any worker")
    wait_for(lambda: [name for name, *_ in pages(1)] == ["seen/a", "seen/b", "seen/c"], what="nobody's topics gone")
