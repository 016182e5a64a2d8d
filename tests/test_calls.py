"""What it takes to let a client in, in calls of Python functions: on a machine that others use, times tell little.

Each call more is one for each of ten thousand clients that come back at once. A bound may be raised, with a reason.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from ssepool import AccessConfig, Hub, HubConfig, ServerConfig
from ssepool.runtime.handover import AVAILABLE
from ssepool.server.server import Server

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="sockets are detached on Linux only")

PAGE = [
    *(b"Connection: keep-alive", b"sec-ch-ua-mobile: ?0", b"User-Agent: Mozilla/5.0", b"Accept: text/event-stream"),
    *(b"Cache-Control: no-cache", b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Dest: empty"),
    *(b"Referer: http://127.0.0.1:8000/", b"Accept-Encoding: gzip, br", b"Accept-Language: en"),
]
"""What a browser sends beside."""


def calls_of(work: Callable[[], None]) -> int:
    """How many Python functions are called."""
    calls = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


async def calls_to_let_in(hub: Hub, heads: Sequence[bytes]) -> list[int]:
    """The calls from the first packet to the first event of a stream, for each of these clients in turn."""
    found = []
    async with hub:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            listener = Server(hub, hub.app, ServerConfig())._uvicorn._listen(listening)
            for head in heads:
                ours, theirs = socket.socketpair()
                with ours:
                    ours.sendall(head)
                    theirs.setblocking(False)
                    found.append(calls_of(partial(listener._read, theirs.detach(), ("127.0.0.1", 5))))
                    assert b"event: ssepool.open\n" in ours.recv(4096)
            listener.close()
    return found


def head(*fields: bytes) -> bytes:
    return b"\r\n".join([b"GET /events?topic=room HTTP/1.1", b"Host: 127.0.0.1", *fields, b"", b""])


async def test_who_reads_what_is_public_is_let_in_with_few_calls() -> None:
    hub = Hub(HubConfig(access=AccessConfig(public_topics=("room",))))
    _, *found = await calls_to_let_in(hub, [head()] * 5 + [head(*PAGE)] * 4)
    plain, of_a_page = min(found[:4]), min(found[4:])
    assert plain <= 103  # two of them give `ssepool.open` the id of the place at which the stream begins
    assert of_a_page - plain <= len(PAGE) + 2  # each field is read, and not gone through again by all who look for one


async def test_a_token_adds_few_calls_and_fewer_once_it_is_known(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    access = AccessConfig(token_keys=(str(tmp_path / "key"),), token_issuers=("me",), token_audience="hub")
    hub = Hub(HubConfig(access=access))
    tokens = [hub.tokens.issue(subject=f"u{number}", subscribe=["room"]) for number in range(5)]
    heads = [head(b"Authorization: Bearer " + token.encode()) for token in tokens]
    found = await calls_to_let_in(hub, [*heads, *heads])
    # The first makes what is remembered of all; what else the process tidies up meanwhile is not theirs.
    at_first, again = min(found[1:5]), min(found[5:])
    assert (at_first <= 136, again <= 120) == (True, True), (at_first, again)
