"""Whatever bytes come, each parser takes them, or refuses them with the errors that it names, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import seal, sealed
from ssepool.brokers.record import UNREADABLE_ERRORS, Record, pack, unpack
from ssepool.config import HubConfig
from ssepool.core.visit import requested_id
from ssepool.errors import SSEPoolError
from ssepool.http.errors import APIError
from ssepool.http.shortcuts import Shortcuts
from ssepool.http.subscribe import read_subscription
from ssepool.parts import Parts
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.messages import Question
from ssepool.runtime.tasks import Tasks
from ssepool.server.listener import subscription_scope

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
"""Inputs for each parser; more where somebody asks for it."""

SYNTAX = st.sampled_from(
    [
        *(b"topic", b"pattern", b"data", b"last_event_id", b"private", b"retry", b"type", b"id", b"topics"),
        *(
            b"=",
            b"&",
            b"%",
            b"%00",
            b"%ff",
            b"+",
            b":",
            b"*",
            b"(",
            b")",
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b"\\",
            b",",
            b".",
        ),
        *(b"GET /events?", b" HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"\n", b"\0", b"null", b"true", b"1e999", b"-0"),
        *(b"\\ud800", b"\xff", b"\xc3\xa9", b"ssepool/", b"ssepool.", b"..", b"%2e%2e", b"9" * 30, b"a" * 2000),
    ]
)
"""Words of all the languages that are parsed."""
anything = st.binary(max_size=200) | st.lists(SYNTAX, max_size=30).map(b"".join)


@given(anything, st.booleans())
@settings(max_examples=EXAMPLES)
def test_a_query(data: bytes, regexp: bool) -> None:
    with contextlib.suppress(APIError, SSEPoolError):
        read_subscription(data, allow_regexp=regexp)


@given(anything)
@settings(max_examples=EXAMPLES)
def test_a_head(data: bytes) -> None:
    for text in (data, b"GET " + data + b"\r\n\r\n", b"GET /events?" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        scope = subscription_scope(text, ("127.0.0.1", 1))
        assert scope is None or scope["method"] == "GET"


@given(anything, anything)
@settings(max_examples=EXAMPLES)
def test_an_id_to_resume_from(header: bytes, query: bytes) -> None:
    for headers in ([], [(b"last-event-id", header)]):
        id = requested_id({"headers": headers, "query_string": b"last_event_id=" + query})
        assert id is None or 0 < len(id) <= 1024


@pytest.mark.parametrize("kind", [b"application/json", b"application/x-ndjson"])
@given(data=anything)
@settings(max_examples=EXAMPLES)
def test_a_body(kind: bytes, data: bytes) -> None:
    async def publish() -> None:
        parts = Parts.of(HubConfig(detach=False))
        await parts.engine.open()
        shortcuts = Shortcuts(parts.engine, parts.hosts)
        for body in (data, b'{"topic":"a","data":' + data + b"}"):
            reply = shortcuts.publication(b"/events", [(b"host", b"localhost"), (b"content-type", kind)], body)
            assert reply is None or reply[0] == 201
        parts.engine.shutdown()
        await parts.engine.cut()
        await parts.engine.close()

    asyncio.run(publish())


@given(anything | st.builds(lambda topics, rest: pack([b"data: x\n\n", topics, *rest]), st.text(), st.lists(st.none())))
@settings(max_examples=EXAMPLES)
def test_a_record(data: bytes) -> None:
    with contextlib.suppress(*UNREADABLE_ERRORS):
        record = unpack(data)
        assert isinstance(record, Record)
        record.entry("0000000a", 1)


KINDS = [question.kind for question in Question.__subclasses__()] + ["here", "bye", "answer", "other"]
NAMES = ("id", "seconds", "size", "limit", "after", "node", "host", "pid", "token", "data", "fingerprint", "cells")
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner),
)
fields = {"to": st.none() | st.text(max_size=5), "ref": st.integers(), "time": st.just(0), "body": bodies}
messages = st.fixed_dictionaries({"kind": st.sampled_from(KINDS), "sender": st.text(max_size=5)}, optional=fields)


@given(anything | anything.map(sealed) | messages.map(lambda message: sealed(msgspec.json.encode(message))))
@settings(max_examples=EXAMPLES)
def test_a_message_between_nodes(data: bytes) -> None:
    async def hear() -> None:
        asked: list[Any] = []

        async def handle(question: Any) -> None:
            asked.append(question)

        tasks = Tasks()
        cluster = Cluster("abc", None, tasks, seal=seal(), broker_timeout=1, now=lambda: 0.0)
        for question in Question.__subclasses__():
            cluster.on(question, handle)
        cluster._receive(data)
        await tasks.close(10)
        assert all(isinstance(question, Question) for question in asked)

    asyncio.run(hear())
