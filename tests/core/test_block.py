"""Events that other packages have made: their frames, and their objects."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from ag_ui.core import EventType, TextMessageContentEvent
from ag_ui.encoder import EventEncoder
from datastar_py import ServerSentEventGenerator as Datastar
from fastapi.sse import ServerSentEvent, format_sse_event
from litestar.response import ServerSentEventMessage
from sse_starlette import JSONServerSentEvent
from sse_starlette import ServerSentEvent as StarletteEvent

from ssepool import Decoder, Event, InvalidEvent
from ssepool.core.data import DataEncoder

TURBO = (
    "event: message\nid: t1\n"
    'data: <turbo-stream action="append" target="m">\ndata:  <template>\ndata:</template>\ndata: </turbo-stream>\n\n'
)

FRAMES: dict[str, str] = {
    "datastar": str(
        Datastar.patch_elements("<div id='a'>\n  b\n</div>", selector="#a", event_id="e1", retry_duration=2000)
    ),
    "datastar signals": str(Datastar.patch_signals({"a": 1.5})),
    "ag-ui": EventEncoder().encode(
        TextMessageContentEvent(type=EventType.TEXT_MESSAGE_CONTENT, message_id="m", delta="x\ny")
    ),
    "turbo": TURBO,
    "fastapi": format_sse_event(data_str="a\n\nb", event="t", id="f1", retry=5000, comment="c\nd").decode(),
    "ai sdk": 'data: {"type":"text-delta","delta":"1.10"}\n\n',
    "done": "data: [DONE]\n\n",
    "unknown fields and comments": ": first\nfoo: bar\ndata:x\n:second\nfoo\n\n",
    "a retry that no client reads": "retry: soon\ndata: x\n\n",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_frame_keeps_its_bytes(frame: str, kind: Any) -> None:
    event = Event.from_frame(kind(frame), topics="a")
    lines = [line for line in frame.strip("\n").split("\n") if not line.startswith("id:")]
    id = [] if event.id is None else [f"id: {event.id}"]
    assert event.encode() == ("\n".join(id + lines) + "\n\n").encode()
    assert event.encode_without_id() == ("\n".join(lines) + "\n\n").encode()
    assert event.topics == ("a",)
    assert event.entry("0123abcd", 7).frame == event.encode(event.id or "0123abcd-7")


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
def test_the_fields_of_a_frame_are_those_that_a_client_reads(frame: str) -> None:
    decoder = Decoder()
    [message] = decoder.feed(frame.encode())
    event = Event.from_frame(frame)
    assert (event.data, event.type or "message", event.id or "") == (message.data, message.type, message.id)
    assert event.retry == decoder.retry
    assert Decoder().feed(event.encode()) == [message]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_become_lf(end: str) -> None:
    assert Event.from_frame(TURBO.replace("\n", end)) == Event.from_frame(TURBO)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("data: a", "is not whole: it ends without a blank line"),
        ("data: a\n", "is not whole"),
        ("data: a\n\ndata: b\n\n", "is more than one"),
        (": ping\n\ndata: b\n\n", "is more than one"),
        (": ping\n\n", "has no data"),
        ("id: 5\n\n", "has no data"),
        (b"data: \xff\n\n", "is not text in UTF-8"),
        (5, "is not text in UTF-8"),
        ("id: a b\ndata: x\n\n", "id 'a b' is not allowed"),
        ("event: ssepool.close\ndata: x\n\n", "the hub's own"),
        ("retry: 1\ndata: x\n\n", "retry 1 is not allowed"),
        ("retry: " + "9" * 5000 + "\ndata: x\n\n", "retry 9+ is not allowed"),
        ("data: \ud800\n\n", "surrogates"),
    ],
)
def test_what_is_not_exactly_one_frame_of_an_event_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        Event.from_frame(frame)


def test_a_frame_published_elsewhere_keeps_its_bytes_and_may_get_another_id() -> None:
    event = Event.of("b", Event.from_frame("id: 1\nfoo: bar\ndata:x\n\n", topics="a"), id="2", private=True)
    assert (event.topics, event.private, event.encode()) == (("b",), True, b"id: 2\nfoo: bar\ndata:x\n\n")


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(alias="itemName")


ITEM = Item(itemName="pen")

OBJECTS: list[tuple[Any, bytes]] = [
    (ServerSentEvent(data="hello", event="t", id="1", retry=5000), b'id: 1\nevent: t\nretry: 5000\ndata: "hello"\n\n'),
    (ServerSentEvent(data=ITEM), b'data: {"itemName":"pen"}\n\n'),
    (ServerSentEvent(data={"items": [ITEM]}), b'data: {"items":[{"itemName":"pen"}]}\n\n'),
    (ServerSentEvent(raw_data="a\nb"), b"data: a\ndata: b\n\n"),
    (ServerSentEvent(raw_data=""), b"data: \n\n"),
    (ServerSentEvent(data=1, comment="c\nd", id="9"), b"id: 9\n: c\n: d\ndata: 1\n\n"),
    (ServerSentEvent(comment="ping"), b": ping\n\n"),
    (ServerSentEvent(retry=5000), b"retry: 5000\n\n"),
    (StarletteEvent("a\nb", event="t", id="1", retry=5000), b"id: 1\nevent: t\nretry: 5000\ndata: a\ndata: b\n\n"),
    (StarletteEvent(17, comment="c"), b": c\ndata: 17\n\n"),
    (JSONServerSentEvent({"a": 1}, event="t"), b'event: t\ndata: {"a":1}\n\n'),
    (ServerSentEventMessage(data="x", event="t", id=5), b"id: 5\nevent: t\ndata: x\n\n"),
]


@pytest.mark.parametrize(("given", "frame"), OBJECTS)
def test_an_event_of_another_package_stands_for_all_that_it_says(given: Any, frame: bytes) -> None:
    event = Event.of("a", given)
    assert (event.topics, event.encode()) == (("a",), frame)


def test_fastapi_says_the_same(subtests: Any = None) -> None:
    for given, frame in OBJECTS:
        if isinstance(given, ServerSentEvent):
            data = given.raw_data if given.raw_data is not None else None
            if data is None and given.data is not None:
                data = json.dumps(
                    json.loads(Event(given.data if not isinstance(given.data, str) else [given.data]).data)
                )
                data = data[1:-1] if isinstance(given.data, str) else data
            theirs = format_sse_event(
                data_str=data, event=given.event, id=given.id, retry=given.retry, comment=given.comment
            )
            ours, other = Decoder(), Decoder()
            mine, wanted = ours.feed(frame), other.feed(theirs)
            assert [m.type for m in mine] == [m.type for m in wanted]
            assert [m.id for m in mine] == [m.id for m in wanted] and ours.retry == other.retry


def test_fields_given_beside_it_win() -> None:
    event = Event.of("a", ServerSentEvent(raw_data="x", event="theirs", id="1", comment="gone"), type="mine")
    assert event.encode() == b"id: 1\nevent: mine\ndata: x\n\n"


def test_the_hook_makes_json_of_what_fastapi_s_event_holds() -> None:
    encoder = DataEncoder(lambda unknown: type(unknown).__name__)
    assert Event.of("a", ServerSentEvent(data=[object()]), encoder=encoder).data == '["object"]'


def test_what_no_event_may_have_is_refused_there_too() -> None:
    for given in (ServerSentEvent(data=1, id="a b"), ServerSentEvent(data=1, retry=0), StarletteEvent("x", id="\xe4")):
        with pytest.raises(InvalidEvent):
            Event.of("a", given)


def test_a_model_of_ones_own_is_data_whatever_its_fields_are_called() -> None:
    class Hook(pydantic.BaseModel):
        event: str = "e"
        data: str = "d"
        id: str = "i"
        retry: int = 1

    assert Event.of("a", Hook()).data == '{"event":"e","data":"d","id":"i","retry":1}'
