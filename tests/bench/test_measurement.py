"""Whole measurements of a server that does what it is told to: every fault is counted, and nothing else."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bench.faulty import Fault, FaultyServer, doubling, faithful, losing, swapping
from ssepool.bench import BenchError, Plan, Progress, Report, run
from ssepool.bench.poller import Poller, Selector
from ssepool.errors import ConfigError

if sys.platform == "linux":
    from ssepool.bench.poller import Epoll

QUICK: dict[str, Any] = {"warmup": 0, "settle": 0, "seconds": 20, "rate": 0, "body": "{data}"}
TWENTY = {**QUICK, "subscribers": 5, "events": 20}


def measured(server: FaultyServer, **values: Any) -> Report:
    topic = "t{i}" if values.get("topics", 1) != 1 else "t"
    urls = {"subscribe": f"{server.url}/{topic}", "publish": f"{server.url}/{topic}"}
    return run(Plan(**{**TWENTY, **urls, **values}))


def counts(report: Report) -> dict[str, int]:
    assert report.delivering
    return {name: getattr(report.delivering, name) for name in ("received", "lost", "missed", "doubled", "reordered")}


def expected(received: int, lost: int = 0, missed: int = 0, doubled: int = 0, reordered: int = 0) -> dict[str, int]:
    return {"received": received, "lost": lost, "missed": missed, "doubled": doubled, "reordered": reordered}


@pytest.fixture(autouse=True)
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this server sends is there before its answer to who published it, so nothing is worth a long wait."""
    monkeypatch.setattr("ssepool.bench.measurement.QUIET_SECONDS", 0.2)


# Faults


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 20])
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (lambda: faithful, expected(100)),
        (lambda: losing(0, 7, 8, 19), expected(80, lost=20)),
        (lambda: doubling(0, 7, 19), expected(115, doubled=15)),
        (lambda: swapping(0, 7, 11), expected(100, reordered=15)),
        (lambda: swapping(3, 4, 5), expected(100, reordered=15)),
        (lambda: losing(*range(20)), expected(0, lost=100)),
    ],
    ids=["faithful", "losing", "doubling", "swapping", "swapping several", "silent"],
)
def test_exactly_the_faults_of_a_server_are_counted(
    fault: Callable[[], Fault], found: dict[str, int], batch: int, chunked: bool
) -> None:
    with FaultyServer(fault, chunked=chunked) as server:
        assert counts(measured(server, batch=batch)) == found


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("held_back", [1, 2, 3, 40, 150])
def test_events_in_two_reads_count_once_and_an_unfinished_one_is_lost(
    held_back: int, line_end: bytes, chunked: bool
) -> None:
    frame = len(b"id: 0..data: ..") + 100
    # Of chunks the last bytes are their own line end, which no event needs.
    unfinished = held_back - (2 if chunked else 0)
    if line_end == b"\r\n" and unfinished == 1:
        unfinished = 0  # a CR is a whole line end until an LF follows
    lost = 0 if unfinished <= 0 else 1 if unfinished <= frame else 2
    with FaultyServer(held_back=held_back, line_end=line_end, chunked=chunked) as server:
        assert counts(measured(server, subscribers=3)) == expected(3 * (20 - lost), lost=3 * lost)


def test_faults_are_counted_in_each_topic_and_lane() -> None:
    with FaultyServer(lambda: swapping(0)) as server:
        report = measured(server, subscribers=8, topics=0, events=400, lanes=4)
        assert counts(report) == expected(400, reordered=counts(report)["reordered"])
        # Which event comes first depends on the lanes' race; it is late only if the second is of its lane.
        assert counts(report)["reordered"] <= 8
        assert {request.split(b" ")[1] for request in server.requests} == {b"/t%d" % topic for topic in range(8)}


def test_a_stream_that_ends_misses_what_comes_thereafter() -> None:
    with FaultyServer(closes_after=12) as server:
        report = measured(server)
        assert counts(report) == expected(60, missed=40)
        assert report.connecting.ended == {"closed by the server": 5}
        assert any("5 streams ended" in note for note in report.notes)


# Publishing


def refusing(*numbers: int, answer: bytes = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") -> Any:
    return lambda request: answer if request in numbers else None


def test_events_that_the_server_refuses_are_not_lost() -> None:
    with FaultyServer(refuses=refusing(3, 4, 9)) as server:
        report = measured(server, batch=2)
        assert counts(report) == expected(5 * 14)
        assert report.publishing and (report.publishing.events, report.publishing.requests) == (14, 7)
        assert report.publishing.failed == {"status 503": 3}
        assert any("3 requests to publish failed" in note for note in report.notes)


def test_a_server_that_takes_nothing_is_told_at_once() -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot there"
    with (
        FaultyServer(refuses=refusing(0, answer=answer)) as server,
        pytest.raises(BenchError, match=f"{server.url}/t takes no events: status 404: not there"),
    ):
        measured(server)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\nbusy", "status 503"),
        (b"SSH-2.0-x\r\n\r\n", "b'SSH-2.0-x' is not the first line of an HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "closed before the answer"),
        (b"HTTP/1.1 200 OK\r\n", "closed before the answer"),
    ],
)
def test_a_connection_that_ends_is_replaced(answer: bytes, why: str) -> None:
    with FaultyServer(refuses=refusing(5, answer=answer), leaves=True) as server:
        report = measured(server)
        assert report.publishing and report.publishing.failed == {why: 1}
        assert counts(report) == expected(95)


def test_a_server_that_does_not_answer_is_not_waited_for_without_end() -> None:
    with FaultyServer(refuses=refusing(5, answer=b"HTTP/1.1 200 ")) as server:
        report = measured(server, connect_timeout=0.3)
        assert report.publishing and report.publishing.failed == {"no answer within 0.3 s": 1}
        assert counts(report) == expected(95)


def test_requests_carry_what_they_are_told_to() -> None:
    with FaultyServer() as server:
        run(
            Plan(
                **{
                    **TWENTY,
                    "subscribe": f"{server.url}/a?x={{i}}",
                    "subscribe_headers": ("X-Topic: {i}",),
                    "publish": f"{server.url}/a?x={{i}}",
                    "headers": ("X-Number: {n}", "Content-Type: text/plain"),
                    "body": "{n} {i} {t} {data}",
                    "method": "PUT",
                    "size": 200,
                    "events": 3,
                }
            )
        )
        for number, request in enumerate(server.requests):
            head, _, body = request.partition(b"\r\n\r\n")
            assert head.startswith(b"PUT /a?x=0 HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"\r\nX-Number: %d\r\nContent-Type: text/plain\r\nContent-Length: " % number in head
            n, i, t, data = body.split(b" ")
            assert (n, i, len(data)) == (b"%d" % number, b"0", 200)
            assert data.rstrip(b"x").endswith(b".0.%d.%b~" % (number, t))
        assert all(head.startswith(b"GET /a?x=0 HTTP/1.1\r\n") for head in server.subscriptions)
        assert all(
            b"\r\nX-Topic: 0" in head and b"\r\nAccept: text/event-stream" in head for head in server.subscriptions
        )


def test_batches_are_put_between_what_is_given() -> None:
    with FaultyServer() as server:
        measured(
            server, batch=3, events=7, body='"{data}"', batch_start="[\n", batch_join="\n,\n", batch_end="\n]", size=0
        )
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
        assert [len(body) for body in bodies] == [3, 3, 1]


def test_at_a_rate_events_are_due_at_even_times() -> None:
    with FaultyServer() as server:
        report = measured(server, rate=100, events=20, body="{data}")
        times = [int(request.rstrip(b"x")[:-1].rpartition(b".")[2]) for request in server.requests]
        assert {second - first for first, second in itertools.pairwise(times)} <= {9_999, 10_000, 10_001}
        assert counts(report) == expected(100)
        assert report.delivering and report.delivering.latency and report.delivering.latency.count == 100
        assert report.delivering.time_to_last and report.delivering.time_to_last.count == 20


def test_the_window_bounds_what_is_on_its_way() -> None:
    # Nothing ever comes: the window lets two events through, and then one each time that patience ends.
    with FaultyServer(lambda: losing(*range(1000))) as server:
        report = measured(server, window=2, seconds=1.2, events=0, drain=0)
        assert report.publishing and 2 <= report.publishing.events <= 4


def test_events_that_still_come_when_the_wait_ends_are_told_of() -> None:
    with FaultyServer(lambda: losing(1)) as server:
        report = measured(server, drain=0)
        assert any("events were still coming 0 s after" in note for note in report.notes)
        report = measured(server, drain=5)
        assert not any("still coming" in note for note in report.notes)


# Subscribing


def test_who_gets_no_stream_is_counted_by_why() -> None:
    with FaultyServer(subscribe_status=b"503 Busy") as server, pytest.raises(BenchError, match=r"'status 503': 5"):
        measured(server)


def test_without_a_server_there_is_nothing_to_measure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with pytest.raises(BenchError, match="ECONNREFUSED"):
        run(Plan(**{**TWENTY, "subscribe": url, "publish": url}))


def test_who_gets_no_answer_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        with pytest.raises(BenchError, match=r"no head within 0\.2 s': 5"):
            run(Plan(**{**TWENTY, "subscribe": url, "publish": url, "connect_timeout": 0.2}))


def test_those_who_stall_are_evenly_spread_and_not_counted() -> None:
    with FaultyServer() as server:
        report = measured(server, subscribers=20, stall=0.25)
        assert (report.stalled, report.cut_off) == (5, 0)
        assert counts(report) == expected(15 * 20)


@pytest.mark.skipif(sys.platform != "linux", reason="buffers are larger elsewhere")
def test_those_who_stall_soon_hold_up_a_server_that_waits_for_them() -> None:
    with FaultyServer() as server:
        # Whoever publishes waits for this server, and this server for those who stall.
        report = measured(server, subscribers=4, stall=0.5, size=200_000, events=0, seconds=0.5, connect_timeout=0.3)
        assert report.publishing and set(report.publishing.failed) == {"no answer within 0.3 s"}


def test_those_who_stall_and_are_let_go_are_counted() -> None:
    with FaultyServer(closes_after=20) as server:
        report = measured(server, subscribers=10, stall=0.5, size=5000)
        assert (report.stalled, report.cut_off) == (5, 5)


def test_subscribers_come_at_a_rate() -> None:
    with FaultyServer() as server:
        report = measured(server, subscribers=20, connect_rate=100)
        assert report.connecting.seconds >= 0.19
        assert report.connecting.open == 20


def test_idle_publishes_nothing() -> None:
    with FaultyServer() as server:
        report = measured(server, idle=True, seconds=0.1)
        assert (report.publishing, report.delivering, server.requests) == (None, None, [])
        assert report.connecting.open == 5


# Replay


def test_a_replay_is_fetched_from_behind_an_event_whose_id_is_learnt() -> None:
    with FaultyServer() as server:
        report = measured(server, replay=30)
        assert counts(report) == expected(150)
        assert len(server.requests) == 31
        assert [b"\r\nLast-Event-ID: 0" in head for head in server.subscriptions] == [False] + [True] * 5
        assert report.delivering and report.delivering.catch_up and report.delivering.catch_up.count == 5


def test_a_replay_may_begin_where_the_user_says() -> None:
    with FaultyServer() as server:
        report = measured(server, replay=30, last_event_id="9", drain=0.5)
        assert counts(report) == expected(5 * 20, lost=0, reordered=0) | {"lost": 5 * 10}
        assert len(server.subscriptions) == 5


def test_without_ids_a_replay_has_no_beginning() -> None:
    with FaultyServer(ids=False) as server, pytest.raises(BenchError, match="events carry no id"):
        measured(server, replay=3)


# The measurement itself


@pytest.mark.parametrize("poller", [Selector, *([Epoll] if sys.platform == "linux" else [])])
def test_every_poller_serves(poller: Callable[[], Poller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssepool.bench.loop.best", poller)
    with FaultyServer(lambda: swapping(3)) as server:
        assert counts(measured(server, rate=500)) == expected(100, reordered=5)
        assert measured(server, stall=0.2, size=100_000, connect_rate=500, lanes=2).connecting.open == 5


def test_everything_is_closed_in_the_end() -> None:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    with FaultyServer() as server:
        measured(server, lanes=3, stall=0.2)
        with pytest.raises(BenchError):
            measured(server, replay=3, last_event_id="", publish="http://127.0.0.1:1/")
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)


def test_it_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssepool.bench.measurement.PROGRESS_SECONDS", 0.0)
    told: list[Progress] = []
    with FaultyServer() as server:
        urls = {"subscribe": f"{server.url}/t", "publish": f"{server.url}/t"}
        run(Plan(**{**TWENTY, **urls, "rate": 200, "warmup": 0.05, "settle": 0.01}), told.append)
    assert list(dict.fromkeys(progress.phase for progress in told)) == [
        "connecting",
        "settling",
        "warming up",
        "publishing",
    ] + (["waiting"] if told[-1].phase == "waiting" else [])
    assert told[-1].published > 0 and told[-1].open == 5


def test_a_report_can_be_json() -> None:
    with FaultyServer() as server:
        report = measured(server, pids=(os.getpid(),), headers=("Authorization: secret",))
        assert "secret" not in json.dumps(report.as_dict())
        again = json.loads(json.dumps(report.as_dict()))
        assert again["delivering"]["lost"] == 0
        assert again["plan"]["subscribers"] == 5
        assert again["client"]["delivering"]["was_bottleneck"] in (True, False)
        assert sum(count for _, count in again["delivering"]["buckets"]) == 100
        names = [(group, name) for group, name, _ in report.rows()]
        assert len(names) == len(set(names))
        assert ("server", "CPU per delivery") in names


def test_a_process_that_is_not_there_is_named() -> None:
    with FaultyServer() as server, pytest.raises(ConfigError, match="there is no process 4194305"):
        measured(server, pids=(4194305,))


def test_more_connections_than_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (10, 20))
    with FaultyServer() as server, pytest.raises(ConfigError, match="open files are needed, and 20 are allowed"):
        measured(server)
