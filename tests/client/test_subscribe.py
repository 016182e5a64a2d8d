"""Both clients against a scripted server: they reconnect when an EventSource would, and only then."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from client.scripted import GONE, HEAD, Peer, ScriptedServer
from ssepool import EventTooLarge
from ssepool.client import AsyncClient, Client, ClientError, Message, Refused, Unreachable, reader

RETRY_LINE = b"retry: 1\n\n"  # as fast as the client's own lower bound allows

Read = Callable[..., list[Message]]


def read_sync(
    url: str, topics: Any = "t", *, most: int | None = None, timeout: float = 10.0, **options: Any
) -> list[Message]:
    messages = []
    with Client(url, timeout=timeout) as client:
        stream = client.subscribe(topics, **options)
        for message in stream:
            messages.append(message)
            if len(messages) == most:
                break
        stream.close()
    return messages


def read_async(
    url: str, topics: Any = "t", *, most: int | None = None, timeout: float = 10.0, **options: Any
) -> list[Message]:
    async def run() -> list[Message]:
        messages = []
        async with (
            AsyncClient(url, timeout=timeout) as client,
            aclosing(client.subscribe(topics, **options)) as stream,
        ):
            async for message in stream:
                messages.append(message)
                if len(messages) == most:
                    break
        return messages

    return asyncio.run(run())


@pytest.fixture(params=[read_sync, read_async], ids=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Read:
    """Reads a subscription until the server ends it for good, or `most` messages."""
    return request.param  # type: ignore[no-any-return]


def data(messages: list[Message]) -> list[str]:
    return [message.data for message in messages]


def test_messages_come_until_the_server_answers_204(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + RETRY_LINE + b"data: a\n\nid: 2\nevent: x\ndata: b\ndata: c\n\n", GONE)
    assert read(server.url) == [Message("message", "a", ""), Message("x", "b\nc", "2")]
    assert len(server.requests) == 2


def test_the_request_asks_for_a_stream(server: ScriptedServer, read: Read) -> None:
    server.play(GONE)
    read(server.url, ["a b", "ü/1"], patterns="orders/:id")
    request = server.requests[0]
    assert request.method == b"GET"
    assert request.target == b"/events?topic=a+b&topic=%C3%BC%2F1&pattern=orders%2F%3Aid"
    assert request.headers[b"accept"] == b"text/event-stream"
    assert request.headers[b"cache-control"] == b"no-cache"
    assert b"last-event-id" not in request.headers


def test_a_hub_may_be_at_a_prefix(server: ScriptedServer, read: Read) -> None:
    server.play(GONE)
    read(server.url + "/sse/")
    assert server.requests[0].target == b"/sse/events?topic=t"


def test_the_end_of_a_stream_is_followed_by_another_from_the_last_id(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + RETRY_LINE + b"id: 1\ndata: a\n\n", HEAD + b"data: b\n\nid: 3\ndata: c\n\n", GONE)
    assert data(read(server.url)) == ["a", "b", "c"]
    assert [request.headers.get(b"last-event-id") for request in server.requests] == [None, b"1", b"3"]


def test_a_reset_in_the_middle_of_an_event_loses_only_that_event(server: ScriptedServer, read: Read) -> None:
    opened = threading.Event()

    def break_off(peer: Peer) -> None:
        peer.send(HEAD + RETRY_LINE + b"id: 1\ndata: a\n\n")
        opened.wait(10)  # a reset overtakes what is still on its way
        peer.send(b"id: 2\ndata: hal")
        peer.reset()

    server.play(break_off, HEAD + b"id: 2\ndata: whole\n\n", GONE)
    lost: list[object] = []
    messages = read(server.url, on_open=opened.set, on_lost=lambda error, seconds: lost.append(error))
    assert data(messages)[-1] == "whole"
    assert "hal" not in data(messages)
    assert isinstance(lost[0], Unreachable)


def test_a_body_that_ends_before_its_length_is_a_break(server: ScriptedServer, read: Read) -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n"
    server.play(short + RETRY_LINE + b"id: 1\ndata: a\n\n", GONE)
    assert data(read(server.url)) == ["a"]
    assert server.requests[1].headers[b"last-event-id"] == b"1"


def test_an_answer_that_is_no_http_is_a_break(server: ScriptedServer, read: Read, quick_retry: None) -> None:
    server.play(b"220 mail.example ESMTP\r\n", GONE)
    assert read(server.url) == []


def test_a_connection_closed_without_an_answer_is_a_break(
    server: ScriptedServer, read: Read, quick_retry: None
) -> None:
    server.play(b"", HEAD + RETRY_LINE + b"data: a\n\n", GONE)
    assert data(read(server.url)) == ["a"]


def test_nobody_there_is_a_break_also_at_first(server: ScriptedServer, read: Read, quick_retry: None) -> None:
    lost: list[Unreachable | None] = []

    def start(error: Unreachable | None, seconds: float) -> None:
        lost.append(error)
        if len(lost) == 2:
            raise KeyboardInterrupt

    server.play()
    server.stop()
    with pytest.raises(KeyboardInterrupt):
        read(server.url, on_lost=start)
    assert all(re.match(f"no hub answers at {server.url}: ", str(error)) for error in lost)


@pytest.mark.parametrize(
    "status", [b"500 Internal Server Error", b"503 Service Unavailable", b"404 Not Found", b"201 Created"]
)
def test_another_status_ends_the_subscription_with_an_error(server: ScriptedServer, read: Read, status: bytes) -> None:
    answer = b'{"error": {"code": "pool_full", "message": "size=2 open=2"}}'
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(answer))
    server.play(head + answer, GONE)
    with pytest.raises(Refused, match=r"^size=2 open=2$") as refused:
        read(server.url)
    assert refused.value.status == int(status[:3])
    assert len(server.requests) == 1


def test_of_a_refusal_without_end_only_the_beginning_is_read(server: ScriptedServer, read: Read) -> None:
    def talk(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n")
        while not server.leave.is_set():
            peer.send(b"x" * 65536)

    server.play(talk)
    with pytest.raises(Refused, match="answered 500"):
        read(server.url)


@pytest.mark.parametrize("kind", [b"text/html", b"text/plain; x=text/event-stream"])
def test_another_content_type_ends_the_subscription_with_an_error(
    server: ScriptedServer, read: Read, kind: bytes
) -> None:
    server.play(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\ndata: a\n\n" % kind, GONE)
    with pytest.raises(Refused, match="not text/event-stream"):
        read(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_the_original_is_asked_again(
    server: ScriptedServer, read: Read, status: int
) -> None:
    there = b"HTTP/1.1 %d X\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    server.play(there, HEAD + RETRY_LINE + b"id: 1\ndata: a\n\n", there, GONE)
    assert data(read(server.url)) == ["a"]
    targets = [b"/events?topic=t", b"/there"] * 2
    assert [request.target for request in server.requests] == targets
    assert server.requests[3].headers[b"last-event-id"] == b"1"


def test_a_redirect_to_nowhere_ends_the_subscription_with_an_error(server: ScriptedServer, read: Read) -> None:
    server.play(b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", GONE)
    with pytest.raises(Refused, match="answered 301"):
        read(server.url)
    assert len(server.requests) == 1


def test_redirects_in_a_circle_end_the_subscription_with_an_error(server: ScriptedServer, read: Read) -> None:
    around = b"HTTP/1.1 307 X\r\nLocation: /events?topic=t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server.play(*[around] * 50)
    with pytest.raises(ClientError, match="redirect"):
        read(server.url)


def test_a_stream_may_come_in_single_bytes(server: ScriptedServer, read: Read) -> None:
    text = "\ufeffid: 1\r\ndata: grün ☃\r\rdata:zwei\n\n".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    def drip(peer: Peer) -> None:
        for start in range(len(head + chunks)):
            peer.send((head + chunks)[start : start + 1])
        peer.send(b"a\r\n" + RETRY_LINE + b"\r\n0\r\n\r\n")

    server.play(drip, GONE)
    assert read(server.url) == [Message("message", "grün ☃", "1"), Message("message", "zwei", "1")]


def test_an_id_beyond_ascii_comes_back_as_it_was(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + RETRY_LINE + "id: ü☃\ndata: a\n\n".encode(), GONE)
    read(server.url)
    assert server.requests[1].headers[b"last-event-id"] == "ü☃".encode()


def test_an_empty_id_takes_the_header_away(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + RETRY_LINE + b"id\ndata: a\n\n", GONE)
    read(server.url, last_event_id="9")
    assert [request.headers.get(b"last-event-id") for request in server.requests] == [b"9", None]


def test_who_begins_with_the_newest_asks_for_them_until_the_first_has_come(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + RETRY_LINE + b"event: ssepool.open\ndata: {}\n\n", HEAD + b"id: 5\ndata: a\n\n", GONE)
    assert data(read(server.url, last_event_id="last=2"))[-1] == "a"
    assert [request.headers.get(b"last-event-id") for request in server.requests] == [b"last=2", b"last=2", b"5"]


def test_the_wait_before_the_next_attempt_is_told(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + b"retry: 200\n\n", GONE)
    told: list[Any] = []
    read(server.url, on_open=lambda: told.append("open"), on_lost=lambda error, seconds: told.append((error, seconds)))
    [opened, (error, seconds)] = told
    assert (opened, error) == ("open", None)
    assert 0.2 <= seconds <= 0.26


def test_silence_is_a_break(server: ScriptedServer, read: Read) -> None:
    def fall_silent(peer: Peer) -> None:
        peer.send(HEAD + RETRY_LINE + b"id: 1\ndata: a\n\n")
        peer.wait_until_it_leaves()

    server.play(fall_silent, GONE)
    lost: list[Any] = []
    assert data(read(server.url, read_timeout=0.2, on_lost=lambda error, seconds: lost.append(error))) == ["a"]
    assert isinstance(lost[0], Unreachable)
    assert server.requests[1].headers[b"last-event-id"] == b"1"


def test_silence_behind_a_redirect_is_a_break_too(server: ScriptedServer, read: Read) -> None:
    def fall_silent(peer: Peer) -> None:
        peer.send(HEAD + RETRY_LINE)
        peer.wait_until_it_leaves()

    redirect = b"HTTP/1.1 307 X\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server.play(redirect, fall_silent, GONE)
    assert read(server.url, read_timeout=0.2) == []


def test_the_head_may_take_longer_than_any_other_answer(server: ScriptedServer, read: Read) -> None:
    def keep_waiting(peer: Peer) -> None:
        server.leave.wait(0.5)
        peer.send(HEAD + RETRY_LINE + b"data: a\n\n")

    server.play(keep_waiting, GONE)
    assert data(read(server.url, timeout=0.1, read_timeout=0.1)) == ["a"]
    assert len(server.requests) == 2


def test_an_event_beyond_the_bound_is_an_error(server: ScriptedServer, read: Read) -> None:
    server.play(HEAD + b"data: " + b"x" * (17 << 20) + b"\n\n")
    with pytest.raises(EventTooLarge):
        read(server.url)


@pytest.mark.parametrize(("text", "header"), [(b"a\x01b", b"a\x01b"), (b" a b\t", b"a b"), (b"\t", b"")])
def test_an_id_that_is_hard_on_headers_comes_back(
    server: ScriptedServer, read: Read, text: bytes, header: bytes
) -> None:
    server.play(HEAD + RETRY_LINE + b"id: " + text + b"\ndata: a\n\n", GONE)
    assert data(read(server.url)) == ["a"]
    assert server.requests[1].headers[b"last-event-id"].strip() == header


def test_who_leaves_early_leaves_no_connection_behind(server: ScriptedServer, read: Read) -> None:
    left = False

    def watch(peer: Peer) -> None:
        nonlocal left
        peer.send(HEAD + b"data: a\n\n")
        peer.wait_until_it_leaves()
        left = True

    server.play(watch)
    assert data(read(server.url, most=1)) == ["a"]
    server._thread.join(10)
    assert left


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has not been told otherwise comes back at once."""
    monkeypatch.setattr(reader, "RECONNECTION_SECONDS", 0.0)
