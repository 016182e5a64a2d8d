"""Measurements of the real hub, on each way that a stream can take, and the command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.faulty import FaultyServer, losing
from live import PATHS, LiveServer, serve
from ssepool.bench import Plan, Report, run
from ssepool.cli import app

ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {"warmup": 0, "settle": 0, "seconds": 30}


@pytest.fixture(scope="module", params=PATHS)
def hub(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=300) as server:
        yield server


def measured(hub: LiveServer, **values: Any) -> Report:
    urls = {"subscribe": f"{hub.url}/events?topic=bench-{{i}}", "publish": f"{hub.url}/events"}
    return run(Plan(**{**QUICK, **urls, "pids": (hub.process.pid,), **values}))


def whole(report: Report, received: int) -> bool:
    found = report.delivering
    assert found
    assert (found.received, found.lost, found.missed, found.doubled, found.reordered) == (received, 0, 0, 0, 0)
    return True


def test_at_a_rate_everything_comes(hub: LiveServer) -> None:
    report = measured(hub, subscribers=40, rate=200, events=50, settle=0.5)
    assert whole(report, 40 * 50)
    connecting, publishing, server = report.connecting, report.publishing, report.server
    assert connecting.first_byte and connecting.head and connecting.head.count == 40
    assert publishing and publishing.answer and publishing.answer.count == 50
    assert report.delivering and report.delivering.latency and report.delivering.latency.count == 2000
    assert server and server.cpu_per_delivery and server.cpu_per_subscription and server.memory_after
    assert server.processes >= 1


def test_flat_out_in_batches_within_a_window_everything_comes(hub: LiveServer) -> None:
    report = measured(hub, subscribers=20, rate=0, batch=50, window=200, events=3000)
    assert whole(report, 20 * 3000)


def test_flat_out_on_several_lanes_everything_comes(hub: LiveServer) -> None:
    assert whole(measured(hub, subscribers=10, rate=0, lanes=4, window=50, events=400), 10 * 400)


def test_each_subscriber_may_have_a_topic(hub: LiveServer) -> None:
    report = measured(hub, subscribers=30, topics=0, rate=0, batch=10, events=300)
    assert whole(report, 300)


def test_the_idle_are_held(hub: LiveServer) -> None:
    report = measured(hub, subscribers=30, idle=True, seconds=0.2)
    assert report.connecting.open == 30 and report.delivering is None
    assert report.server and report.server.cpu_share is not None


def test_those_who_stall_harm_nobody(hub: LiveServer) -> None:
    report = measured(hub, subscribers=20, stall=0.2, rate=0, batch=20, size=1000, window=100, events=1000)
    assert whole(report, 16 * 1000)
    assert report.stalled == 4


def test_those_whom_the_hub_lets_go_because_they_stall_are_counted() -> None:
    with serve(send_timeout=0.3, reap_interval=0.05) as server:
        report = measured(server, subscribers=4, stall=0.5, rate=100, size=100_000, events=120)
        assert whole(report, 2 * 120)
        assert (report.stalled, report.cut_off) == (2, 2)
        server.wait_pool(released={"send_timeout": 2})


def test_a_replay_is_fetched_by_all(hub: LiveServer) -> None:
    report = measured(hub, subscribers=20, replay=300, batch=50)
    assert whole(report, 20 * 300)
    assert report.delivering and report.delivering.catch_up and report.delivering.catch_up.count == 20


def test_earlier_runs_are_not_counted_in_a_replay(hub: LiveServer) -> None:
    measured(hub, subscribers=2, rate=0, events=20)
    assert whole(measured(hub, subscribers=5, replay=20, last_event_id="earliest"), 5 * 20)


def test_the_pool_is_empty_again_thereafter(hub: LiveServer) -> None:
    measured(hub, subscribers=20, rate=0, events=20, stall=0.2)
    hub.wait_pool(open=0, free=300)


# The command


def command(server: LiveServer | FaultyServer, *args: str) -> list[str]:
    urls = ["--subscribe", f"{server.url}/events?topic=bench-{{i}}", "--publish", f"{server.url}/events"]
    return ["bench", *urls, "--seconds", "30", "--warmup", "0", "--settle", "0", "-n", "10", *args]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, args, env={"COLUMNS": "300"}, prog_name="ssepool")


def test_the_command_prints_lines_for_programs(hub: LiveServer) -> None:
    result = invoke(*command(hub, "--rate", "0", "--events", "20", "--pid", str(hub.process.pid)))
    assert result.exit_code == 0, result.output
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert {name: value.strip() for name, value in lines.items()}["delivering: lost"] == "0"
    assert "server: CPU per delivery" in lines


def test_the_command_prints_json(hub: LiveServer) -> None:
    result = invoke(*command(hub, "--rate", "0", "--events", "20", "--batch", "5", "--json"))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["delivering"]["received"], report["publishing"]["requests"]) == (200, 4)
    assert report["plan"]["batch_join"] == "\n"


def test_texts_around_events_may_have_escapes() -> None:
    with FaultyServer() as server:
        more = ("--batch", "2", "--batch-start", r"a\n", "--batch-join", r"\nb\n", "--body", r"{data}\tx")
        result = invoke(*command(server, "--rate", "0", "--events", "2", *more))
        assert result.exit_code == 0, result.output
        lines = server.requests[0].partition(b"\r\n\r\n")[2].split(b"\n")
        assert (lines[0], lines[2], lines[1][-2:]) == (b"a", b"b", b"\tx")


def test_what_has_to_be_known_is_told_beside_the_report() -> None:
    refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    with FaultyServer(lambda: losing(1), refuses=lambda number: refused if number == 3 else None) as server:
        result = invoke(*command(server, "--rate", "0", "--events", "5", "--drain", "0.2"))
        assert result.exit_code == 0, result.output
        assert "ssepool: 1 requests to publish failed; their events are not counted as lost" in result.stderr
        assert "delivering: lost" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-n", "0"), "Plan.subscribers = 0 is not allowed"),
        (("--subscribe", "http://192.0.2.1/"), "--remote allows it"),
        (("--subscribe", "https://127.0.0.1/"), "without TLS"),
        (("--body", "x"), "has {data}"),
        (("--pid", "4194305"), "there is no process 4194305"),
    ],
)
def test_a_bad_plan_is_one_line_and_the_code_2(args: tuple[str, ...], message: str) -> None:
    result = invoke("bench", *args)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("ssepool: ") and message in line


def test_without_a_server_it_is_one_line_and_the_code_1() -> None:
    result = invoke("bench", "--subscribe", "http://127.0.0.1:1/", "-n", "3")
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line == "ssepool: nobody could subscribe to http://127.0.0.1:1/: {'ECONNREFUSED': 3}"


def test_the_help_has_an_example_and_every_option() -> None:
    text = invoke("bench", "--help").stdout
    assert "Example: ssepool bench" in text
    for flag in ("--subscribe-header", "--header", "--pid", "--replay", "--stall", "--json", "--window", "--remote"):
        assert f" {flag} " in text


def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with FaultyServer() as server:
        args = command(server, "--rate", "20", "--events", "30")
        started = subprocess.Popen(
            [sys.executable, "-m", "ssepool", *args],
            stdout=theirs,
            stderr=theirs,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        os.close(ours)
        assert started.wait(30) == 0, shown
    for text in (b"publishing", b"10 of 10", b"delivering", b"latency", b"300 in"):
        assert text in shown
    assert b"Traceback" not in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side has gone
        return b""
