"""Whatever bytes come, each parser takes them, or refuses them with the errors that it names, and nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzzing
from ssepool.brokers.record import pack
from ssepool.config import HubConfig
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Everybody
from ssepool.http.shortcuts import Shortcuts
from ssepool.parts import Parts
from ssepool.runtime.cluster.messages import Question

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
"""Inputs for each of hypothesis' tests; more where somebody asks for it."""
DEAR_EXAMPLES = max(1, EXAMPLES // 5)
"""The same for tests of which each example takes 20 ms or more."""
INPUTS = 2000
"""Changed inputs for each parser, always the same ones; `scripts/fuzz` tries others."""

anything = st.binary(max_size=200) | st.lists(st.sampled_from(fuzzing.WORDS), max_size=30).map(b"".join)


@pytest.mark.parametrize("name", fuzzing.PARSERS)
def test_each_input_that_was_kept(name: str) -> None:
    for data in fuzzing.corpus(name):
        fuzzing.answer(name, data)


@pytest.mark.parametrize("name", fuzzing.PARSERS)
def test_inputs_like_those_that_were_kept(name: str) -> None:
    list(fuzzing.fuzz(name, INPUTS, seed=0))


@pytest.mark.parametrize("name", fuzzing.PARSERS)
@given(data=anything)
@settings(max_examples=EXAMPLES)
def test_anything(name: str, data: bytes) -> None:
    fuzzing.answer(name, data)


@given(data=anything)
@settings(max_examples=EXAMPLES)
def test_a_head_around_anything(data: bytes) -> None:
    for text in (b"GET " + data + b"\r\n\r\n", b"GET /events?" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        fuzzing.answer("head", text)


@pytest.mark.parametrize("kind", [b"application/json", b"application/x-ndjson"])
@given(data=anything)
@settings(max_examples=DEAR_EXAMPLES)
def test_a_publication(kind: bytes, data: bytes) -> None:
    async def publish() -> None:
        parts = Parts.of(HubConfig(detach=False))
        await parts.engine.open()
        shortcuts = Shortcuts(parts.engine, parts.hosts, Door([Everybody()], wall_clock=time.time))
        for body in (data, b'{"topic":"a","data":' + data + b"}"):
            reply = shortcuts.publication(b"/events", [(b"host", b"localhost"), (b"content-type", kind)], body)
            assert reply is None or reply[0] == 201
        parts.engine.shutdown()
        await parts.engine.cut()
        await parts.engine.close()

    asyncio.run(publish())


@given(st.builds(lambda topics, rest: pack([b"data: x\n\n", topics, *rest]), st.text(), st.lists(st.none())))
@settings(max_examples=EXAMPLES)
def test_a_record_of_other_types(data: bytes) -> None:
    fuzzing.answer("record", data)


KINDS = [question.kind for question in Question.__subclasses__()] + ["here", "bye", "answer", "other"]
NAMES = ("id", "seconds", "size", "limit", "after", "node", "host", "pid", "token", "data", "fingerprint", "cells")
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner),
)
fields = {"to": st.none() | st.text(max_size=5), "ref": st.integers(), "time": st.just(0), "body": bodies}
messages = st.fixed_dictionaries({"kind": st.sampled_from(KINDS), "sender": st.text(max_size=5)}, optional=fields)


@given(messages)
@settings(max_examples=DEAR_EXAMPLES)
def test_a_message_of_other_types(content: dict[str, Any]) -> None:
    fuzzing.answer("message", msgspec.json.encode(content))


def test_a_fault_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> int:
        return 1 // (b"*" not in data)

    monkeypatch.setitem(fuzzing.PARSERS, "query", fuzzing.Parser(broken, (), (b"a",)))
    monkeypatch.setattr(fuzzing, "CORPUS", fuzzing.CORPUS / "of nobody")
    with pytest.raises(fuzzing.Failed, match="query: ZeroDivisionError") as caught:
        list(fuzzing.fuzz("query", 1000, seed=0))
    assert b"*" in caught.value.data
