"""Who comes back gets what it missed, exactly, and then what is live."""

from __future__ import annotations

import random
import threading

import pytest

import wire
from live import LiveServer, Stream
from live_fixtures import Connect, Start

SETTINGS = {"size": 100, "history_events": 100_000}


def publish(server: LiveServer, topic: str, *numbers: int) -> list[str]:
    """Publish numbers as a batch, and return the ids."""
    status, answer = server.request("POST", "/events", [{"topic": topic, "data": number} for number in numbers])
    assert status == 201, answer
    ids: list[str] = answer["ids"]
    return ids


@pytest.mark.parametrize("parameter", ["header", "last_event_id", "lastEventId"])
def test_a_client_resumes_behind_its_last_event(server: LiveServer, connect: Connect, parameter: str) -> None:
    ids = publish(server, f"resume {parameter}", 0, 1, 2, 3)
    if parameter == "header":
        stream = connect(server, f"resume {parameter}", last_event_id=ids[1])
    else:
        stream = connect(server, f"resume {parameter}", query={parameter: ids[1]})
    publish(server, f"resume {parameter}", 4)
    stream.wait_data("2", "3", "4")
    assert not stream.of_type("ssepool.gap")
    assert stream.events[0].type == "ssepool.open"


def test_the_header_wins_over_the_query(server: LiveServer, connect: Connect) -> None:
    # A polyfill's query keeps the id that the page began with; the header is newer.
    ids = publish(server, "header first", 0, 1, 2, 3)
    stream = connect(server, "header first", last_event_id=ids[2], query={"last_event_id": ids[0]})
    stream.wait_data("3")


def test_without_an_id_a_stream_begins_with_what_is_live(server: LiveServer, connect: Connect) -> None:
    publish(server, "from now on", 0, 1)
    stream = connect(server, "from now on").opened()
    empty = connect(server, "from now on", last_event_id="").opened()
    publish(server, "from now on", 2)
    stream.wait_data("2")
    empty.wait_data("2")


@pytest.mark.parametrize("wanted", [{"patterns": ("quiet/:any",)}, {"topics": ("quiet/1",)}], ids=["pattern", "topic"])
def test_a_client_that_has_had_no_event_comes_back_and_has_missed_none(
    server: LiveServer, connect: Connect, wanted: dict[str, tuple[str, ...]]
) -> None:
    server.publish("noise", 0)
    stream = connect(server, *wanted.get("topics", ()), patterns=wanted.get("patterns", ())).opened()
    place = stream.events[0].id
    stream.close()
    publish(server, "noise", 1, 2)
    publish(server, "quiet/1", 3)
    again = connect(server, *wanted.get("topics", ()), patterns=wanted.get("patterns", ()), last_event_id=place)
    again.wait_data("3")
    assert (again.events[0].id, again.of_type("ssepool.gap")) == (place, [])


def test_earliest_is_everything_that_is_kept(server: LiveServer, connect: Connect) -> None:
    publish(server, "all of it", 0, 1, 2)
    publish(server, "not this", 9)
    stream = connect(server, "all of it", query={"last_event_id": "earliest"})
    publish(server, "all of it", 3)
    stream.wait_data("0", "1", "2", "3")
    assert not stream.of_type("ssepool.gap")


def test_the_newest_of_each_topic_come_first(server: LiveServer, connect: Connect) -> None:
    for number, topic in enumerate(["new/a", "new/b", "new/a", "new/b", "new/a", "noise"]):
        publish(server, topic, number)
    both = connect(server, "new/a", "new/b", query={"last_event_id": "latest"})
    two = connect(server, "new/a", last_event_id="last=2")
    pattern = connect(server, patterns=("new/:any",), query={"lastEventId": "last=3"})
    back = connect(
        server, "new/a", last_event_id=both.wait_data("3", "4").events[1].id, query={"last_event_id": "latest"}
    )
    publish(server, "new/a", 6)
    both.wait_data("3", "4", "6")
    two.wait_data("2", "4", "6")
    pattern.wait_data("2", "3", "4", "6")
    back.wait_data("4", "6")  # an id wins
    none = connect(server, "new/none", query={"last_event_id": "latest"})
    none.until(lambda s: s.of_type("ssepool.empty"))
    place = none.events[-1].id
    publish(server, "new/none", 1, 2)
    connect(server, "new/none", last_event_id=place, query={"last_event_id": "latest"}).wait_data("1", "2")


@pytest.mark.parametrize("id", ["never-made", "0", "ü", "x" * 5000], ids=["unknown", "number", "unicode", "long"])
def test_an_unknown_id_is_told_as_a_gap(server: LiveServer, connect: Connect, id: str) -> None:
    publish(server, f"gap {id[:9]}", 0, 1)
    stream = connect(server, f"gap {id[:9]}", last_event_id=id)
    publish(server, f"gap {id[:9]}", 2)
    stream.wait_data("0", "1", "2")
    (gap,) = stream.of_type("ssepool.gap")
    assert gap["reason"] == "unknown_id"
    assert gap["requested"][:5] == id[:5] or id == "ü"  # how header bytes become text is the server's business
    assert stream.events[1].type == "ssepool.gap"


def test_ids_of_publishers_resume_too(server: LiveServer, connect: Connect) -> None:
    for number in range(4):
        server.publish("own ids", number, id=f"step/{number}")
    connect(server, "own ids", last_event_id="step/1").wait_data("2", "3")
    # One that is there already is ignored: publishers may try again.
    server.publish("own ids", 1, id="step/1")
    server.publish("own ids", 5)
    connect(server, "own ids", last_event_id="step/1").wait_data("2", "3", "5")


def test_the_last_event_need_not_be_of_a_subscribed_topic(server: LiveServer, connect: Connect) -> None:
    publish(server, "mine", 0)
    (elsewhere,) = publish(server, "elsewhere", 1)
    publish(server, "mine", 2)
    connect(server, "mine", last_event_id=elsewhere).wait_data("2")


def test_patterns_are_replayed(server: LiveServer, connect: Connect) -> None:
    (first,) = publish(server, "tree/1", 0)
    publish(server, "bush/1", 1)
    publish(server, "tree/2", 2)
    connect(server, patterns=("tree/:any",), last_event_id=first).wait_data("2")


def test_a_long_replay_is_whole(server: LiveServer, connect: Connect) -> None:
    # More entries than one look into the broker takes, more bytes than one page, and others' events between.
    (first,) = publish(server, "long", 0)
    for start in range(1, 6001, 1000):
        batch = [
            {"topic": "long" if number % 3 else "between", "data": f"{number} " + "x" * 150}
            for number in range(start, start + 1000)
        ]
        assert server.request("POST", "/events", batch)[0] == 201
    stream = connect(server, "long", last_event_id=first)
    expected = [number for number in range(1, 6001) if number % 3]
    stream.until(lambda s: len(s.data) >= len(expected))
    assert [int(data.split()[0]) for data in stream.data] == expected
    publish(server, "long", 6001)
    stream.until(lambda s: s.data[-1] == "6001")
    assert len(stream.data) == len(expected) + 1
    wire.check(stream.raw)


def test_what_is_no_longer_kept_is_told_as_a_gap(start: Start, connect: Connect) -> None:
    server = start(history_events=5)
    ids = publish(server, "short", *range(10))
    stream = connect(server, "short", last_event_id=ids[1])
    stream.wait_data("5", "6", "7", "8", "9")
    assert stream.of_type("ssepool.gap") == [{"requested": ids[1], "resumed": ids[5], "reason": "expired"}]
    # The event itself may be gone, as long as nothing behind it is.
    complete = connect(server, "short", last_event_id=ids[4])
    complete.wait_data("5", "6", "7", "8", "9")
    assert not complete.of_type("ssepool.gap")


def test_with_nothing_kept_a_gap_says_that_live_is_next(start: Start, connect: Connect) -> None:
    server = start(history_events=0)
    (first,) = publish(server, "none", 0)
    publish(server, "none", 1)
    stream = connect(server, "none", last_event_id=first).opened()
    publish(server, "none", 2)
    stream.wait_data("2")
    assert stream.of_type("ssepool.gap") == [{"requested": first, "resumed": None, "reason": "expired"}]


def test_an_id_of_another_process_is_a_gap(start: Start, connect: Connect) -> None:
    server = start()
    ids = publish(server, "restart", 0, 1)
    epoch, _, number = ids[0].rpartition("-")
    other = ("0" if epoch[0] != "0" else "1") + epoch[1:]
    stream = connect(server, "restart", last_event_id=f"{other}-{number}")
    stream.wait_data("0", "1")
    assert [gap["reason"] for gap in stream.of_type("ssepool.gap")] == ["unknown_id"]


def test_nothing_is_lost_or_doubled_while_a_publisher_goes_on(server: LiveServer, path: str) -> None:
    """Clients leave and come back at random, in the middle of everything, until they have the last event."""
    total = 4000
    (first,) = publish(server, "race", 0)
    failures: list[str] = []

    def visit(seed: int) -> None:
        dice = random.Random(seed)
        last_id, seen, visits = first, 0, 0
        while seen < total - 1:
            patience = dice.choice([1, 3, 10, 30, 100, 1000])
            with Stream(server, "race", last_event_id=last_id) as stream:
                visits += 1
                while len(stream.data) < patience and seen + len(stream.data) < total - 1 and stream.read():
                    pass
                wire.check(stream.raw, complete=False)
                numbers = [int(data) for data in stream.data]
                if numbers != list(range(seen + 1, seen + 1 + len(numbers))) or stream.of_type("ssepool.gap"):
                    failures.append(f"client {seed}, visit {visits}: after {seen} came {numbers[:20]}...")
                    return
                if numbers:
                    seen, last_id = numbers[-1], stream.last_event_id
                if dice.random() < 0.3:
                    stream.close(reset=True)

    clients = [threading.Thread(target=visit, args=(seed,)) for seed in range(8)]
    for client in clients:
        client.start()
    dice = random.Random(path)
    number = 1
    while number < total:
        batch = range(number, min(total, number + dice.choice([1, 1, 1, 5, 20, 200])))
        publish(server, "race", *batch)
        number = batch.stop
    for client in clients:
        client.join()
    assert not failures, failures
