"""`ssepool serve --workers`: real processes on one port, with the pool shared out among them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from live import LiveServer, Stream, serve_command, wait_for

WORKERS = 3

Start = Callable[..., LiveServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `ssepool serve` with three workers and whatever other flags."""
    with ExitStack() as stack:

        def start(*flags: str) -> LiveServer:
            broker = f"sqlite:///{tmp_path}/events.db"
            command = serve_command("--workers", str(WORKERS), "--broker", broker, *flags)
            return stack.enter_context(command)

        yield start


@pytest.fixture
def connect(start: Start) -> Iterator[Callable[..., Stream]]:
    streams: list[Stream] = []

    def connect(server: LiveServer, *topics: str, **options: Any) -> Stream:
        streams.append(Stream(server, *topics, **options))
        return streams[-1]

    yield connect
    for stream in streams:
        stream.close()


def report(server: LiveServer) -> dict[str, Any]:
    status, answer = server.request("GET", "/pool")
    assert status == 200, answer
    assert answer["missing"] == []
    for worker in (answer, *answer["workers"]):
        pool = worker["pool"]
        assert pool["free"] + pool["reserved"] + pool["open"] + pool["closing"] == pool["size"]
    result: dict[str, Any] = answer
    return result


def wait_report(server: LiveServer, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        status, answer = server.request("GET", "/pool")
        return answer if status == 200 and len(answer["workers"]) == WORKERS and condition(answer) else None

    return wait_for(look)  # type: ignore[return-value]


def open_of(answer: dict[str, Any]) -> list[int]:
    return [worker["pool"]["open"] for worker in answer["workers"]]


def pids(server: LiveServer) -> list[int]:
    return [worker["pid"] for worker in report(server)["workers"]]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_workers_pools_are_like_one(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "7")
    answer = report(server)
    assert (answer["pool"]["size"], [worker["pool"]["size"] for worker in answer["workers"]]) == (7, [3, 2, 2])
    # Whoever accepts first, all slots are used before anybody waits.
    streams = [connect(server, "news").opened() for _ in range(7)]
    answer = report(server)
    assert (answer["pool"]["open"], open_of(answer)) == (7, [3, 2, 2])
    waiting = connect(server, "news")
    wait_report(server, lambda answer: answer["pool"]["waiting"] == 1)
    assert waiting.quiet()
    ids = [server.publish("news", number) for number in range(20)]
    for stream in streams:
        stream.wait_data(*map(str, range(20)))
        stream.close()
    waiting.opened()
    assert len(set(ids)) == 20


def test_clients_are_spread_evenly(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "3000")
    for _ in range(300):
        connect(server, "news")
    answer = wait_report(server, lambda answer: answer["pool"]["open"] == 300)
    # One may be ahead by its slack and the burst of one turn.
    assert max(open_of(answer)) - min(open_of(answer)) <= 2 * 64


def test_every_worker_reaches_every_connection(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "6")
    streams = {stream.connection: stream for stream in (connect(server, "news").opened() for _ in range(6))}
    for _ in range(4):  # each request goes to a worker of its own
        listed = server.request("GET", "/connections")[1]
        assert (sorted(found["id"] for found in listed["connections"]), listed["missing"]) == (sorted(streams), [])
    pages: list[str] = []
    following = ""
    while following is not None:
        page = server.request("GET", f"/connections?limit=2{following and '&after=' + following}")[1]
        pages += [found["id"] for found in page["connections"]]
        following = page["next"]
    assert pages == sorted(streams)
    for id, stream in streams.items():
        assert server.request("GET", f"/connections/{id}")[1]["id"] == id
        token = stream.of_type("ssepool.open")[0]["token"]
        path = f"/connections/{id}/messages"
        for given, status in ((token, 202), ("wrong", 401)):
            assert server.request("POST", path, {"hello": 1}, {"Authorization": f"Bearer {given}"})[0] == status
    assert server.request("GET", "/connections/ffffff-0-0")[0] == 404


def test_workers_serve_without_taking_sockets_over(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--no-detach")
    stream = connect(server, "a").opened()
    server.publish("a", "x")
    stream.wait_data("x")


def test_stats_shows_each_worker(start: Start) -> None:
    server = start("--pool-size", "7")
    command = [sys.executable, "-m", "ssepool", "stats", "--url", server.url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = dict(line.rsplit(None, 1) for line in printed.splitlines() if line.startswith(("pool.", "worker ")))
    assert numbers["pool.size"] == "7"
    assert [numbers[f"worker {index}.size"] for index in range(3)] == ["3", "2", "2"]
    assert [int(numbers[f"worker {index}.pid"]) for index in range(3)] == pids(server)


def test_a_kicked_client_is_kept_away_by_all_workers(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "60")
    stream = connect(server, "news", data={"name": "mallory"}).opened()
    assert server.request("DELETE", f"/connections/{stream.connection}")[0] == 204
    stream.to_end()
    # Bans are told to the others by a message.
    wait_for(lambda: all(_is_sent_away(connect(server, "news", data={"name": "mallory"})) for _ in range(10)))
    assert not _is_sent_away(connect(server, "news", data={"name": "alice"}))


def _is_sent_away(stream: Stream) -> bool:
    return stream.until(lambda s: s.events).of_type("ssepool.close") == [{"reason": "kicked"}]


def test_the_pool_is_resized_and_drained_as_one(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "6")
    status, answer = server.request("PATCH", "/pool", {"size": 11})
    assert (status, [worker["pool"]["size"] for worker in answer["workers"]]) == (200, [4, 4, 3])
    status, answer = server.request("PATCH", "/pool", {"size": 2})
    assert (status, answer["error"]["code"]) == (400, "invalid_setting")
    assert "3 workers take 3 at least" in answer["error"]["message"]
    streams = [connect(server, "news").opened() for _ in range(11)]
    assert server.request("POST", "/pool/drain", {"seconds": 0.2})[0] == 202
    for stream in streams:
        stream.to_end()
        assert stream.of_type("ssepool.close") == [{"reason": "drained"}]


def test_metrics_and_the_live_report_are_of_all_workers(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "9")
    watching = connect(server, "ssepool/pool")
    streams = [connect(server, "news").opened() for _ in range(5)]
    server.publish("news", "hello")
    for stream in streams:
        stream.wait_data("hello")
    found = {
        (sample.name, sample.labels.get("worker"), sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(server.request("GET", "/metrics")[1])
        for sample in family.samples
    }
    for name, total in (("ssepool_size", 9), ("ssepool_events_delivered_total", 5), ("ssepool_broker_up", 3)):
        assert sum(found[name, str(worker), None] for worker in range(WORKERS)) >= total
    assert sum(found["ssepool_slots", str(worker), "open"] for worker in range(WORKERS)) == 6
    assert [found["ssepool_events_published_total", str(worker), None] for worker in range(WORKERS)] == [1, 1, 1]

    def last(stream: Stream) -> dict[str, Any]:
        reports = stream.of_type("ssepool.pool")
        return reports[-1] if reports else {"pool": {"open": 0}}

    watching.until(lambda s: last(s)["pool"]["open"] == 6 and last(s)["events"]["published"] == 1)
    assert (len(last(watching)["cells"]), last(watching)["cells"].count("o")) == (9, 6)


def test_a_worker_that_dies_is_replaced_and_its_clients_miss_nothing(
    start: Start, connect: Callable[..., Stream]
) -> None:
    server = start("--pool-size", "30")
    streams = [connect(server, "news").opened() for _ in range(9)]
    expected = [str(number) for number in range(60)]
    data: list[list[str]] = [[] for _ in streams]
    victim = pids(server)[0]
    for number in range(60):
        if number == 20:
            os.kill(victim, signal.SIGKILL)
        _publish(server, number)
    for place, stream in enumerate(streams):
        while True:
            stream.until(lambda s: s.ended or s.data[-1:] == expected[-1:])
            data[place] += stream.data
            if not stream.ended:
                break
            # As EventSource does it.
            last = stream.last_event_id
            stream = connect(server, "news", last_event_id=last) if last else connect(server, "news")
    assert data == [expected] * len(streams)
    answer = wait_report(server, lambda answer: victim not in [worker["pid"] for worker in answer["workers"]])
    assert answer["pool"]["size"] == 30
    server.said("ended with code -9")


def _publish(server: LiveServer, number: int) -> None:
    """With an id of its own, so that it may be tried again where the worker that had taken it was killed."""

    def publish() -> bool:
        try:
            body = {"topic": "news", "data": number, "id": f"n{number}"}
            return server.request("POST", "/events", body)[0] == 201
        except OSError:
            return False

    wait_for(publish)


def test_a_worker_that_hangs_takes_no_clients(start: Start, connect: Callable[..., Stream]) -> None:
    server = start("--pool-size", "30")
    hanging = pids(server)[1]
    os.kill(hanging, signal.SIGSTOP)
    try:
        for _ in range(10):
            connect(server, "news").opened()
    finally:
        os.kill(hanging, signal.SIGCONT)
    answer = wait_report(server, lambda answer: answer["pool"]["open"] == 10)
    assert open_of(answer)[1] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_and_tells_all_clients(
    start: Start, connect: Callable[..., Stream], number: int
) -> None:
    server = start("--pool-size", "30")
    workers = pids(server)
    streams = [connect(server, "news").opened() for _ in range(9)]
    assert server.stop(number) == 0
    for stream in streams:
        stream.to_end()
        assert stream.of_type("ssepool.close") == [{"reason": "shutdown"}]
    assert not any(alive(pid) for pid in workers)


def test_workers_end_with_their_supervisor(start: Start) -> None:
    server = start()
    workers = pids(server)
    server.stop(signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workers", "2"), "workers = 2 is not allowed with the broker memory://"),
        (("--workers", "4", "--pool-size", "3", "--broker", "sqlite:///x.db"), "PoolConfig.size = 3 is not allowed"),
        (("--workers", "2", "--broker", "sqlite:////nowhere/at/all/x.db"), "/nowhere/at/all"),
        (("--workers", "0"), "ServerConfig.workers = 0 is not allowed; it takes a number, from 1 to"),
    ],
)
def test_what_will_not_do_is_one_line_and_an_exit_code(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert any(message in line for line in done.stderr.splitlines()), done.stderr
