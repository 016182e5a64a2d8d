"""Streams behind middleware that compresses: what the head says of the body is true, detached or not."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator

import brotli
import httpx
import pytest

from live import DEADLINE, PATHS, LiveServer, Stream, serve_app

MIDDLEWARE = ("brotli", "gzip", "home-made", "measuring")


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("compressed_app:app", request.param, size=5, retry=0.05) as server:
        yield server


@pytest.mark.parametrize("middleware", MIDDLEWARE)
def test_a_client_that_decodes_reads_every_event(server: LiveServer, middleware: str) -> None:
    headers = {"Accept-Encoding": "br, gzip", "X-Middleware": middleware}
    with (
        httpx.Client(timeout=DEADLINE) as client,
        client.stream("GET", f"{server.url}/coded/topics/a", headers=headers) as stream,
    ):
        decode = decoder(stream.headers.get("content-encoding", ""))
        text = b""
        for part in stream.iter_raw():
            text += decode(part)
            if b"ssepool.open" in text and b"first" not in text:
                server.publish("a", "first")
            elif b"data: first\n\n" in text and b"second" not in text:
                server.publish("a", "second")
            elif b"data: second\n\n" in text:
                break
        assert text.startswith(b"id: ")
    server.wait_pool(free=5)


def decoder(coding: str) -> Callable[[bytes], bytes]:
    if coding == "br":
        return brotli.Decompressor().process
    if coding == "gzip":
        return zlib.decompressobj(wbits=31).decompress
    assert coding == ""
    return bytes


@pytest.mark.parametrize("middleware", MIDDLEWARE[:-1])
def test_whoever_is_turned_away_reads_why(server: LiveServer, middleware: str) -> None:
    headers = {"Accept-Encoding": "br, gzip", "X-Middleware": middleware}
    topic = f"/topics/{middleware}"
    with httpx.Client(timeout=DEADLINE) as client:
        with Stream(server, path=f"/coded{topic}").opened() as stream:
            assert server.request("DELETE", f"/connections/{stream.connection}")[0] == 204
            stream.to_end()
        text = ""
        with client.stream("GET", f"{server.url}/coded{topic}", headers=headers) as answer:
            assert answer.status_code == 200
            with contextlib.suppress(httpx.RemoteProtocolError):  # a cut: it is to come back later
                for part in answer.iter_text():
                    text += part
        assert '{"reason":"kicked"}' in text
