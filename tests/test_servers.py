"""What docs/servers.md promises under each server: a client that comes back gets what it missed, a slot is freed when
its client leaves, and the server stops while a hundred streams are open, each of which is told so."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from live import DEADLINE, LiveServer, Stream, running, wait_for

STREAMS = 100


class Kind(NamedTuple):
    """A server, as a user starts it."""

    command: str
    announces: str
    workers: int = 1
    says_goodbye: bool = True
    """Whether its streams are told that it ends."""


UVICORN, GUNICORN = r"running on (http\S*)", r"Listening at: (http\S*)"
DAPHNE = r"Listening on TCP address (\S+)"
OURS = "--http ssepool.uvicorn:Protocol"

KINDS = {
    "uvicorn detached": Kind(f"uvicorn --port {{port}} {OURS} served_app:app", UVICORN),
    "uvicorn plain": Kind("uvicorn --port {port} served_app:app", UVICORN),
    "uvicorn plain h11": Kind("uvicorn --port {port} --http h11 served_app:app", UVICORN),
    "uvicorn workers": Kind(f"uvicorn --port {{port}} --workers 2 {OURS} served_app:app", UVICORN, 2),
    "gunicorn with our worker": Kind(
        "gunicorn -b 127.0.0.1:{port} -w 2 -k ssepool.gunicorn.Worker served_app:app", GUNICORN, 2
    ),
    "gunicorn with its own": Kind("gunicorn -b 127.0.0.1:{port} -w 2 -k asgi served_app:app", GUNICORN, 2),
    "granian": Kind("granian --interface asgi --port {port} --workers 2 served_app:app", GUNICORN, 2),
    "hypercorn in one process": Kind("hypercorn -b 127.0.0.1:{port} -w 0 served_app:app", r"Running on (http\S*)"),
    "hypercorn with workers": Kind(
        "hypercorn -b 127.0.0.1:{port} -w 2 --graceful-timeout 1 served_app:app", r"Running on (http\S*)", 2, False
    ),
    "daphne": Kind("daphne -p {port} served_app:without_lifespan", DAPHNE),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def served(kind: Kind, folder: Path, *more: str) -> Iterator[LiveServer]:
    broker = "memory://" if kind.workers == 1 else f"sqlite:///{folder}/events.db"
    command = [sys.executable, "-m", *kind.command.format(port=free_port()).split(), *more]
    with running(command, kind.announces, {"SERVED_BROKER": broker}) as server:
        server.url = server.url if server.url.startswith("http") else f"http://{server.url}"
        wait_for(lambda: len(open_streams(server)) == kind.workers, what="all workers")
        yield server


def open_streams(server: LiveServer) -> dict[int, int]:
    """The open streams of each process that answers."""
    found: dict[int, int] = {}
    for _ in range(20):
        with contextlib.suppress(OSError):  # it has not begun to listen, or takes a moment off
            answer = server.request("GET", "/who")[1]
            found[answer["pid"]] = answer["open"]
    return found


def say(server: LiveServer, text: str) -> str:
    return str(server.request("POST", f"/say?text={text}")[1]["id"])


def stop(server: LiveServer, number: int = signal.SIGTERM) -> int:
    """End it. The signal is repeated: granian does not see one that comes in its first second."""

    def ended() -> bool:
        server.process.send_signal(number)
        with contextlib.suppress(Exception):
            server.process.wait(1)
        return server.process.poll() is not None

    wait_for(ended, what="the end")
    return int(server.process.returncode)


@contextlib.contextmanager
def streaming(server: LiveServer) -> Iterator[list[Stream]]:
    """A hundred clients, each of which came back and has got what it missed."""
    first = say(server, "one")
    for text in ("two", "three"):
        say(server, text)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(server, "a", last_event_id=first)) for _ in range(STREAMS)]
        for stream in streams:
            stream.wait_data("two", "three")
        yield streams


def reasons(stream: Stream) -> list[str]:
    return [closing["reason"] for closing in stream.to_end().of_type("ssepool.close")]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_who_comes_back_gets_what_was_missed_slots_are_freed_and_it_ends_with_streams_open(
    kind: Kind, tmp_path: Path
) -> None:
    with served(kind, tmp_path) as server, streaming(server) as streams:
        for stream in streams[:10]:
            stream.close()
        wait_for(lambda: sum(open_streams(server).values()) == STREAMS - 10, what="slots freed")
        assert stop(server) in (0, -signal.SIGTERM)
        for stream in streams[10:]:
            assert reasons(stream) == (["shutdown"] if kind.says_goodbye else [])


RELOADS = {
    "uvicorn --reload": Kind(f"uvicorn --port {{port}} --reload {OURS} served_app:app", UVICORN),
    "uvicorn --reload plain": Kind("uvicorn --port {port} --reload served_app:app", UVICORN),
    "gunicorn with our worker": KINDS["gunicorn with our worker"],
    "gunicorn with its own": KINDS["gunicorn with its own"],
}


@pytest.mark.parametrize("kind", RELOADS.values(), ids=RELOADS)
def test_a_reload_sends_streams_away_that_come_back_to_the_new_process(kind: Kind, tmp_path: Path) -> None:
    watched = tmp_path / "changed.py"
    watched.write_text("")
    more = ["--reload-dir", str(tmp_path)] if "--reload" in kind.command else []
    with served(kind, tmp_path, *more) as server, streaming(server) as streams:
        before = set(open_streams(server))
        if more:
            watched.write_text("# another content")
        else:
            server.process.send_signal(signal.SIGHUP)
        for stream in streams:
            assert reasons(stream) == ["shutdown"]

        def are_new() -> bool:  # one that ends may answer for a moment still
            found = set(open_streams(server))
            return len(found) == kind.workers and not found & before

        wait_for(are_new, what="new processes")
        with Stream(server, "a") as stream:
            stream.opened()
            say(server, "four")
            stream.wait_data("four")
        assert stop(server) in (0, -signal.SIGTERM)


def test_a_server_that_sends_no_lifespan_is_told_what_to_do() -> None:
    with running([sys.executable, "-m", *f"daphne -p {free_port()} served_app:app".split()], DAPHNE) as server:
        server.url = f"http://{server.url}"
        status, answer = server.request("GET", "/events?topic=a")
        assert status == 503
        assert "`await hub.open()` with the first request" in str(answer)


async def test_streams_of_one_http2_connection_have_a_slot_each(tmp_path: Path) -> None:
    with served(KINDS["hypercorn in one process"], tmp_path) as server:
        first = say(server, "one")
        say(server, "two")
        async with httpx.AsyncClient(http1=False, http2=True, base_url=server.url, timeout=DEADLINE) as client:

            async def read(wanted: str) -> None:
                fields = {"Last-Event-ID": first}
                async with client.stream("GET", "/events?topic=a", headers=fields) as answer:
                    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
                    async for line in answer.aiter_lines():
                        if line == f"data: {wanted}":
                            return

            # Each leaves with its connection: this client does not reset single streams.
            waiting = [asyncio.create_task(read("three")) for _ in range(5)]
            await asyncio.to_thread(wait_for, lambda: sum(open_streams(server).values()) == 5, what="a slot each")
            await asyncio.to_thread(say, server, "three")
            await asyncio.gather(*waiting)
        await asyncio.to_thread(wait_for, lambda: sum(open_streams(server).values()) == 0, what="slots freed")
