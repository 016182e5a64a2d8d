"""The client that asks an application, against real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssepool.errors import ConfigError
from ssepool.http.access.answer import MAX_ANSWER_BYTES
from ssepool.http.access.application import Application, Reply, Unanswered

GRANT = b'{"subject": "ann"}'


def answer(status: str = "200 OK", body: bytes = GRANT, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


class Server:
    """Answers each request with the next of its answers, and the last one from then on; None hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.heads: list[str] = []
        self.connections = 0
        self.url = ""
        self.tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if said is None:
                    break
                writer.write(said)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def fields(self, index: int = -1) -> dict[str, str]:
        lines = self.heads[index].lower().splitlines()[1:]
        return dict(line.split(": ", 1) for line in lines if line)


@contextlib.asynccontextmanager
async def talking(*answers: bytes | None, query: str = "") -> AsyncIterator[tuple[Server, Application]]:
    server = Server(*answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/auth{query}"
    app = Application(server.url)
    try:
        yield server, app
    finally:
        await app.close()
        listener.close()
        if server.tasks:
            await asyncio.wait(server.tasks, timeout=5)


async def test_it_asks_with_the_fields_and_the_query() -> None:
    async with talking(answer(), query="?key=secret") as (server, app):
        assert await app.ask([(b"cookie", b"a=\xe4"), (b"user-agent", b"B/1")], "action=publish") == Reply(200, GRANT)
        assert server.heads[0].startswith("GET /auth?key=secret&action=publish HTTP/1.1\r\n")
        assert "secret" not in app.shown and app.shown in server.url


async def test_one_connection_serves_one_question_after_the_other() -> None:
    async with talking(answer()) as (server, app):
        for _ in range(5):
            await app.ask([], "action=subscribe")
        assert (server.connections, len(server.heads)) == (1, 5)


async def test_what_is_set_for_one_user_goes_along_with_no_other() -> None:
    async with talking(answer("200 OK", GRANT, "Set-Cookie: session=ann; Path=/")) as (server, app):
        await app.ask([(b"cookie", b"session=ann")], "")
        await app.ask([], "")
        assert "cookie" not in server.fields()
        await app.ask([(b"cookie", b"session=ben")], "")
        assert server.fields()["cookie"] == "session=ben"


async def test_it_follows_no_redirect() -> None:
    async with talking(answer("302 Found", b"", "Location: /login")) as (server, app):
        assert await app.ask([], "") == Reply(302, b"")
        assert len(server.heads) == 1


@pytest.mark.parametrize("status", ["204 No Content", "401 Unauthorized", "500 Oops"])
async def test_of_another_status_nothing_is_read(status: str) -> None:
    async with talking(answer(status, b"" if status[:3] == "204" else b"x" * 100_000)) as (_, app):
        assert await app.ask([], "") == Reply(int(status[:3]), b"")


async def test_an_answer_that_is_too_large_is_none() -> None:
    async with talking(answer(body=b"x" * MAX_ANSWER_BYTES), answer(body=b"x" * (MAX_ANSWER_BYTES + 1))) as (_, app):
        assert len((await app.ask([], "")).body) == MAX_ANSWER_BYTES
        with pytest.raises(Unanswered, match="more than 65536 bytes"):
            await app.ask([], "")


async def test_a_compressed_answer_is_not_decompressed() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    async with talking(answer("200 OK", bomb, "Content-Encoding: gzip")) as (server, app):
        assert (await app.ask([], "")).body == bomb
        assert server.fields()["accept-encoding"] == "identity"


async def test_a_connection_that_was_closed_meanwhile_does_no_harm() -> None:
    async with talking(answer(), None, answer()) as (server, app):
        await app.ask([], "")
        assert await app.ask([], "") == Reply(200, GRANT)
        assert server.connections == 2


@pytest.mark.parametrize(
    "said", [None, b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999x\r\n\r\n"]
)
async def test_what_speaks_no_http_is_no_answer(said: bytes | None) -> None:
    async with talking(said) as (_, app):
        with pytest.raises(Unanswered):
            await app.ask([], "")


async def test_nobody_there_is_no_answer() -> None:
    async with talking(answer()) as (server, app):
        pass
    app = Application(server.url)
    with pytest.raises(Unanswered, match="ConnectError"):
        await app.ask([], "")
    await app.close()


async def test_no_variable_sends_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with talking(answer()) as (_, app):
        assert (await app.ask([], "")).status == 200


def test_without_httpx2_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "httpx2", missing)
    with pytest.raises(ConfigError, match=r"authorize_url needs httpx2: pip install 'ssepool\[client\]'"):
        Application("http://127.0.0.1/auth")
