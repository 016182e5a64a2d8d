"""One exchange alone: what of a response goes where, before and after its socket is detached."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from ssepool.runtime.exchange import Exchange
from ssepool.runtime.handover import AVAILABLE

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Side:
    """A connection of uvicorn with one request, as far as an exchange looks at it."""

    def __init__(self, near: socket.socket | None = None, *, more_body: bool = False) -> None:
        self.sent: list[Any] = []
        self.lingered = self.left = self.alone = False
        self.cycle: Any = SimpleNamespace(
            response_started=False,
            more_body=more_body,
            keep_alive=True,
            disconnected=False,
            message_event=asyncio.Event(),
            default_headers=[],
            access_log=False,
            body=bytearray(b"body"),
            scope={},
        )
        self.transport = SimpleNamespace(
            get_extra_info=lambda name: near,
            is_closing=lambda: False,
            get_write_buffer_size=lambda: 0,
            abort=lambda: None,
        )
        self.pipeline: list[Any] = []
        self.server_state = SimpleNamespace(total_requests=0)
        self.exchange = Exchange(self, self.cycle, {"http_version": "1.1"}, self.receive, self.send)  # type: ignore[arg-type]

    def leave_callers(self) -> None:
        self.left = True

    def linger(self) -> None:
        self.lingered = True

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append((message["type"], self.cycle.keep_alive))
        self.cycle.response_started = True


class Sink:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def head(self, data: bytes, *, chunked: bool = False) -> None:
        self.got.append(data.lower())

    def body(self, data: bytes) -> None:
        self.got.append(data)

    def complete(self) -> None:
        self.got.append(None)


@pytest.mark.parametrize("more_body", [False, True])
async def test_a_response_before_the_whole_body_ends_the_connection_gently(more_body: bool) -> None:
    side = Side(more_body=more_body)
    await side.exchange.send(START)
    await side.exchange.send({"type": "http.response.body", "body": b"x", "more_body": True})
    assert not side.lingered
    await side.exchange.send({"type": "http.response.body", "body": b"x"})
    # The head says that the connection ends; the server is kept from closing it at once.
    assert [keeps for _, keeps in side.sent] == ([False, False, True] if more_body else [True] * 3)
    assert side.lingered is more_body


async def test_a_body_that_comes_while_it_is_answered_is_no_reason_to_linger() -> None:
    side = Side(more_body=True)
    await side.exchange.send(START)
    side.cycle.more_body = False
    await side.exchange.send({"type": "http.response.body", "body": b"x"})
    assert (side.lingered, side.sent[-1]) == (False, ("http.response.body", False))


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
@pytest.mark.parametrize("owned", [False, True])
async def test_a_coding_is_passed_on_with_a_body_of_the_applications_alone(owned: bool) -> None:
    near, far = socket.socketpair()
    with near, far:
        side = Side(near)
        handover = side.exchange.detach(30.0)
        assert handover is not None
        with socket.socket(fileno=handover.fd):
            sink = Sink()
            handover.sink, handover.owns_body = sink, owned
            coded = [*START["headers"], (b"Content-Encoding", b"br"), (b"vary", b"accept-encoding")]  # type: ignore[misc]
            await handover.send({**START, "headers": coded})
            await handover.send({"type": "http.response.body", "body": b"\x13", "more_body": True})
            assert side.left
            assert b"vary: accept-encoding" in sink.got[0]
            assert (b"content-encoding: br" in sink.got[0], b"\x13" in sink.got) == (not owned, not owned)


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
@pytest.mark.parametrize(
    ("status", "content_type"), [(418, b"text/event-stream"), (200, b"application/json"), (200, None)]
)
async def test_a_response_in_a_streams_place_keeps_its_length_and_its_body(
    status: int, content_type: bytes | None
) -> None:
    near, far = socket.socketpair()
    with near, far:
        handover = Side(near).exchange.detach(30.0)
        assert handover is not None
        with socket.socket(fileno=handover.fd):
            sink = Sink()
            handover.sink, handover.owns_body = sink, True
            head = [(b"content-length", b"2"), *([] if content_type is None else [(b"content-type", content_type)])]
            await handover.send({"type": "http.response.start", "status": status, "headers": head})
            await handover.send({"type": "http.response.body", "body": b"no"})
            assert not handover.owns_body
            assert b"content-length: 2" in sink.got[0]
            assert sink.got[1:] == [b"no", None]


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
async def test_a_body_without_a_coding_is_passed_on() -> None:
    near, far = socket.socketpair()
    with near, far:
        handover = Side(near).exchange.detach(30.0)
        assert handover is not None
        with socket.socket(fileno=handover.fd):
            sink = Sink()
            handover.sink, handover.owns_body = sink, True
            await handover.send(START)
            await handover.send({"type": "http.response.body", "body": b": hello\n"})
            assert sink.got[1:] == [b": hello\n", None]


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
async def test_a_socket_whose_request_is_not_there_stays_with_the_server() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert Side(near, more_body=True).exchange.detach(30.0) is None
