"""Fuzzing of whatever reads bytes of strangers: seeds are changed at random, and what is new is kept.

A parser's check is given bytes. It fails if the parser raises anything but its own errors, if it works for longer than
`MAX_HELD_MILLISECONDS`, or if what it read does not survive being written and read again. An input that gets an answer
of a new kind is changed further, and stands in `attacks/corpus/` afterwards: one file a parser, a `bytes` literal a
line. `scripts/fuzz 1000000` tries a million inputs; the tests try the corpus and some thousands.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from channel import seal, sealed
from ssepool.brokers.record import UNREADABLE_ERRORS, pack, unpack
from ssepool.core.decoder import Decoder, Message
from ssepool.core.event import Event
from ssepool.core.grant import ANYBODY
from ssepool.core.topics import Subscription
from ssepool.core.visit import requested_id
from ssepool.errors import EventTooLarge, InvalidEvent, InvalidTopic
from ssepool.http.body import JSON
from ssepool.http.errors import APIError
from ssepool.http.hosts import Hosts
from ssepool.http.origin import Pages
from ssepool.http.publish import FORM, NDJSON, _batch, _events
from ssepool.http.query import MAX_QUERY_BYTES
from ssepool.http.wish import read_subscription
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.messages import Question
from ssepool.runtime.proxies import TrustedProxies
from ssepool.server.listener import subscription_scope

CORPUS = Path(__file__).parent / "attacks" / "corpus"
MAX_INPUT_BYTES = 64 * 1024
MAX_HELD_MILLISECONDS = 50.0
"""Time of the processor for one input."""
MAX_KEPT_BYTES = 300
"""Bytes of an input that is kept because its answer is new."""
MAX_KEPT = 80
"""Inputs that are kept for a parser; one that failed always is."""

WORDS = [
    *(b"topic", b"pattern", b"data", b"last_event_id", b"private", b"retry", b"type", b"id", b"topics", b"=", b"&"),
    *(b"%", b"%00", b"%ff", b"%0d%0a", b"+", b":", b"*", b"(", b")", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"."),
    *(b"GET /events?", b" HTTP/1.1\r\n", b"Host: a\r\n", b"X-Forwarded-For: ::1\r\n", b"\r\n", b"\n", b"\r", b"\0"),
    *(
        b"null",
        b"true",
        b"1e999",
        b"-0",
        b"9" * 30,
        b"0.1",
        b"\\ud800",
        b"\\u0000",
        b"\xff",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
    ),
    *(
        b"ssepool/",
        b"ssepool.",
        b"0000000a-1",
        b"earliest",
        b"..",
        b"%2e%2e",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
    ),
    *(
        b"data: x\n\n",
        b"event: a\n",
        b"id: 1\n",
        b"retry: 1\n",
        b": c\n",
        b"\x1e",
        b"\x91",
        b"\x94",
        b"\xc0",
        b"\xc4\x01",
    ),
]
"""Words of all the languages that are parsed."""

Refused = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Parser:
    """Something that reads bytes: `check` returns what it found in short, and raises `refuses` or fails."""

    check: Callable[[bytes], object]
    refuses: Refused
    seeds: tuple[bytes, ...]


def query(data: bytes) -> object:
    """A subscription's query string; a longer one is refused unread."""
    data = data[:MAX_QUERY_BYTES]
    found = read_subscription(data, allow_regexp=True)
    subscription = Subscription.of(found["topic"], found["pattern"])
    pairs = [("topic", name) for name in found["topic"]] + [("pattern", text) for text in found["pattern"]]
    if "data" in found and found["data"] is not None:
        pairs.append(("data", msgspec.json.encode(found["data"]).decode()))
    again = read_subscription(urlencode(pairs).encode(), allow_regexp=True)
    assert again["topic"] == found["topic"]
    assert again["pattern"] == found["pattern"]
    assert subscription == Subscription.of(again["topic"], again["pattern"])
    subscription.matches(["orders/1", "http://a/b"], private=False)
    return min(2, len(subscription.topics)), min(2, len(subscription.patterns)), type(found["data"]).__name__


PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
HOSTS = Hosts(["events.example"])
PAGES = Pages(HOSTS)


def head(data: bytes) -> object:
    """A request's head, and what is read from its fields."""
    scope = subscription_scope(data, ("127.0.0.1", 1))
    if scope is None:
        return None
    fields = scope["headers"]
    address, port = PROXIES.client(("127.0.0.1", 1), fields)
    assert 0 < len(address) <= 64 and 0 <= port <= 99999
    admitted = HOSTS.admits(fields)
    PAGES._is_own(next((value.decode("latin-1") for name, value in fields if name == b"origin"), ""), "a:80")
    id = requested_id(scope)
    assert id is None or 0 < len(id) <= 1024
    assert not any(byte in part for field in fields for part in field for byte in (b"\r", b"\n", b"\0"))
    return min(3, len(fields)), admitted, id is None, address == "127.0.0.1"


def body(kind: str) -> Callable[[bytes], object]:
    """The body of POST /events, of one media type."""

    def check(data: bytes) -> object:
        batch = _batch(kind, data)
        events = [event for start in range(0, len(batch), 500) for event in _events(batch, start, 500, ANYBODY)]
        for event in events[:20]:
            fields = {name: getattr(event, name) for name in event.__struct_fields__}
            assert _events(_batch(JSON, msgspec.json.encode(fields)), 0, 500, ANYBODY) == [event]
            on_the_wire(event)
        return min(2, len(events)), [name for name in ("type", "id", "retry") if events and getattr(events[0], name)]

    return check


def event(data: bytes) -> object:
    """The fields of an event, with `\\x1e` between them."""
    text, *rest = data.decode("utf-8", "surrogateescape").split("\x1e")
    topic, type, id, retry = (*rest, *(None,) * 4)[:4]
    made = Event.of(topic or "a", text, type=type, id=id or None, retry=len(retry) if retry else None)
    on_the_wire(made)
    return bool(type), bool(id), bool(retry), "\n" in text or "\r" in text


def on_the_wire(made: Event) -> None:
    """A client reads exactly one message, which is the event."""
    frame = made.encode("7-1" if made.id is None else None)
    text = made.data.replace("\r\n", "\n").replace("\r", "\n")
    decoder = Decoder()
    assert decoder.feed(frame) == [Message(made.type or "message", text, made.id or "7-1")]
    assert decoder.retry == made.retry


def stream(data: bytes) -> object:
    """A stream, as a client reads it: however it is cut."""
    comments: list[str] = []
    whole = Decoder(on_comment=comments.append)
    messages = whole.feed(data)
    cut = Decoder()
    step = max(7, len(data) // 100)
    pieces = [message for at in range(0, len(data), step) for message in cut.feed(data[at : at + step])]
    assert (pieces, cut.last_event_id, cut.retry) == (messages, whole.last_event_id, whole.retry)
    return min(2, len(messages)), bool(comments), whole.retry is None, bool(whole.last_event_id)


def record(data: bytes) -> object:
    """An event as brokers keep it."""
    found = unpack(data)
    assert unpack(pack(found)) == found
    found.entry("0000000a", 1)
    return min(2, len(found.topics)), found.private, found.id is None


class _Nothing:
    """Tasks that are never run."""

    def start(self, work: Any) -> None:
        work.close()


_asked: list[Any] = []


def _cluster() -> Cluster:
    cluster = Cluster("abc", None, _Nothing(), seal=seal(), broker_timeout=1, now=lambda: 0.0)  # type: ignore[arg-type]
    for question in Question.__subclasses__():
        cluster.on(question, _asked.append)  # type: ignore[arg-type]
    return cluster


CLUSTER = _cluster()


def message(data: bytes) -> object:
    """What another node says; also what somebody says who has no key."""
    _asked.clear()
    CLUSTER._receive(data)
    assert not _asked, "heard without a key"
    CLUSTER._receive(sealed(data))
    assert all(isinstance(question, Question) for question in _asked)
    CLUSTER._others.clear()
    return [type(question).__name__ for question in _asked]


JSON_SEEDS = (
    b'{"topic":"a","data":"x"}',
    b'[{"topic":"a","data":{"b":[1,2.5,null,true]}},{"topics":["a","b"],"data":"","type":"t","id":"i","retry":500}]',
    b'{"topic":"a","data":"\\ud83d\\ude00 \\u0000\\r\\n","private":true}',
)
KINDS = [question.kind for question in Question.__subclasses__()]
NODE = {"node": "n", "host": "h", "pid": 1}
MESSAGES = tuple(
    json.dumps({"kind": kind, "sender": "x", "to": None, "ref": 1, "time": 0, "body": content}).encode()
    for kind in (*KINDS, "here", "bye", "answer")
    for content in (None, {}, NODE, {"id": "a-0-0", "seconds": 1, "size": 5, "limit": 3, "token": "t", "data": [1]})
)
BROKEN: Refused = (APIError, InvalidEvent, InvalidTopic)
PARSERS: dict[str, Parser] = {
    "query": Parser(
        query,
        BROKEN,
        (
            b"topic=orders/1&topic=b%20c",
            b"pattern=orders/:id&pattern=*&data=%7B%22a%22%3A1%7D",
            b"pattern={/a}?/(\\d%2B)",
            b"topic=http://a/b&pattern=http://:h/*&last_event_id=7",
        ),
    ),
    "head": Parser(
        head,
        (),
        (
            b"GET /events?topic=a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /events?topic=a&last_event_id=%41 HTTP/1.1\r\nHost: localhost:80\r\n"
            b"X-Forwarded-For: 1.2.3.4:5, [::1]:80, 10.0.0.1\r\n"
            b"Origin: https://events.example\r\nLast-Event-ID: \xc3\xa9\r\n\r\n",
            b"GET http://a/events HTTP/1.1\r\nHost: [::1]\r\nAccept: text/event-stream\r\n\r\n",
        ),
    ),
    "json": Parser(body(JSON), (APIError,), JSON_SEEDS),
    "lines": Parser(body(NDJSON), (APIError,), (JSON_SEEDS[0] + b"\n\n" + JSON_SEEDS[2] + b"\n", *JSON_SEEDS)),
    "form": Parser(
        body(FORM), (APIError,), (b"topic=a&topic=b&data=%41+b&type=t&id=i&retry=500&private=on", b"data=&topic=%C3%A9")
    ),
    "event": Parser(
        event,
        (InvalidEvent, InvalidTopic),
        (b"x\ny\r\nz\x1ea/b\x1etype\x1eid-7\x1e" + b"r" * 600, b"\xc3\xa9\x1ehttp://a"),
    ),
    "stream": Parser(
        stream,
        (EventTooLarge,),
        (b"\xef\xbb\xbf: c\nid: 1\nevent: t\ndata: x\ndata\n\nretry: 5\r\rdata:\r\n\r\n", b"id\0:\n\n"),
    ),
    "record": Parser(
        record,
        UNREADABLE_ERRORS,
        (pack([b"data: x\n\n", ["a", "b"], True, "i"]), pack([b"", []]), pack([b"x", ["a"], False, None])),
    ),
    "message": Parser(message, (), MESSAGES),
}


class Failed(Exception):
    """A parser has not kept what it promises, with this input."""

    def __init__(self, name: str, data: bytes, why: object) -> None:
        super().__init__(f"{name}: {why!r}\n{data[:2000]!r}")
        self.data = data


def answer(name: str, data: bytes) -> str:
    """What a parser says to an input, without the values in it. Raises `Failed`."""
    parser = PARSERS[name]
    began = time.thread_time()
    try:
        said = repr(parser.check(data))
    except parser.refuses as error:
        said = re.sub(r"b?'[^']*'|b?\"[^\"]*\"|`[^`]*`|\d+", "_", f"{type(error).__name__}: {error}")
    except Exception as error:
        raise Failed(name, data, error) from error
    if 1000 * (time.thread_time() - began) > MAX_HELD_MILLISECONDS:
        held = min(_held(parser, data) for _ in range(3))  # the first may have collected somebody else's garbage
        if held > MAX_HELD_MILLISECONDS:
            raise Failed(name, data, f"held the thread for {held:.0f} ms")
    return said[:200]


def _held(parser: Parser, data: bytes) -> float:
    began = time.thread_time()
    with contextlib.suppress(parser.refuses):
        parser.check(data)
    return 1000 * (time.thread_time() - began)


def mutated(chance: random.Random, pool: list[bytes]) -> bytes:
    """One of the pool, changed in one to eight places; now and then a long one."""
    data = bytearray(chance.choice(pool))
    for _ in range(1 << chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.randrange(1, 17))
        match chance.randrange(8):
            case 0:
                data[at:to] = b""
            case 1:
                data[at:at] = chance.choice(WORDS)
            case 2:
                data[at:to] = chance.choice(WORDS)
            case 3:
                data[at:at] = data[at:to] * chance.randrange(1, 5)
            case 4:
                other = chance.choice(pool)
                start = chance.randrange(len(other) + 1)
                data[at:to] = other[start : start + chance.randrange(40)]
            case 5 if data:
                data[at % len(data)] = chance.randrange(256)
            case 6 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 7 if chance.random() < 0.02:
                part = bytes(data[at:to]) or chance.choice(WORDS)
                data[at:to] = part * chance.randrange(1, 1 + MAX_INPUT_BYTES // len(part))
    return bytes(data[:MAX_INPUT_BYTES])


def corpus(name: str) -> list[bytes]:
    """The seeds of a parser, and the inputs that were kept."""
    path = CORPUS / f"{name}.txt"
    kept = [ast.literal_eval(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []
    return list(dict.fromkeys([*PARSERS[name].seeds, *kept]))


def keep(name: str, inputs: list[bytes]) -> None:
    """Write the corpus of a parser."""
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}.txt").write_text("".join(f"{data!r}\n" for data in inputs), "ascii")


def fuzz(name: str, inputs: int, seed: int) -> Iterator[bytes]:
    """Try so many inputs, and give those whose answer is of a new kind. Raises `Failed`."""
    chance, pool = random.Random(f"{seed} {name}"), corpus(name)
    said = {answer(name, data) for data in pool}
    for _ in range(inputs):
        data = mutated(chance, pool)
        if (new := answer(name, data)) not in said and len(data) <= MAX_KEPT_BYTES and len(pool) < MAX_KEPT:
            said.add(new)
            pool.append(data)
            yield data


def main() -> None:
    """Fuzz all parsers, and write the corpus."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("inputs", type=int, nargs="?", default=1_000_000, help="of all parsers together")
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = arguments.parse_args()
    logging.disable()
    failed = False
    for name in PARSERS:
        known, began = corpus(name), time.monotonic()
        each = -(-given.inputs // len(PARSERS))
        try:
            for data in fuzz(name, each, given.seed):
                known.append(data)
        except Failed as error:
            failed = True
            print(error)
            known.append(error.data)
        keep(name, known)
        print(
            f"{name}: {each} inputs, seed {given.seed}, {len(known)} kept, {time.monotonic() - began:.0f} s", flush=True
        )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
