"""What an event takes, what it refuses and with which words, and its frame read back by the decoder."""

from __future__ import annotations

import enum
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.core.decoder import Decoder, Message
from ssepool.core.event import (
    ENTRY_BYTES,
    MAX_RETRY_MILLISECONDS,
    MIN_RETRY_MILLISECONDS,
    TOPIC_BYTES,
    Entry,
    Event,
    comment,
    encode,
    memory_of,
)
from ssepool.errors import InvalidEvent, InvalidTopic

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "sse_vectors.json").read_bytes())[
    "encode"
]


def event_of(fields: dict[str, Any]) -> Event:
    """The event of a vector, where `event` is the type."""
    return Event(**{"type" if name == "event" else name: value for name, value in fields.items()})


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if "out" in case])
def test_vector_comes_back(case: dict[str, Any]) -> None:
    decoder, retry = Decoder(), case["in"].get("retry")
    event = event_of({name: value for name, value in case["in"].items() if name != "retry"})
    # Publishers may not set every `retry` that the format allows.
    (message,) = decoder.feed(encode(event.data, type=event.type, id=event.id, retry=retry))
    got = {"type": message.type, "data": message.data, "last_event_id": message.id, "retry_ms": decoder.retry}
    assert {name: got[name] for name in case["out"]} == case["out"]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if case.get("refuse")])
def test_vector_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        event_of(case["in"])


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if "comment" in case["in"]])
def test_vector_of_a_comment(case: dict[str, Any]) -> None:
    assert len(Decoder().feed(comment(case["in"]["comment"]) + b"\n")) == case["events"]


def test_every_vector_is_run() -> None:
    assert all("out" in case or case.get("refuse") or "comment" in case["in"] for case in CASES)


class TestFrame:
    def test_order_of_the_fields(self) -> None:
        assert encode("a\nb", type="t", id="1", retry=5) == b"id: 1\nevent: t\nretry: 5\ndata: a\ndata: b\n\n"

    def test_data_alone(self) -> None:
        assert Event("x").encode() == b"data: x\n\n"

    def test_empty_data_still_makes_an_event(self) -> None:
        assert Decoder().feed(Event("").encode()) == [Message("message", "", "")]

    def test_given_id_goes_before_its_own(self) -> None:
        assert Event("x", id="own").encode("given") == b"id: given\ndata: x\n\n"
        assert Event("x", id="own").encode() == b"id: own\ndata: x\n\n"

    def test_only_cr_and_lf_split_lines(self) -> None:
        assert encode("a\u2028b\x0bc\x0cd\x85e").count(b"data: ") == 1
        assert encode("a\r\n\rb").count(b"data: ") == 3

    @pytest.mark.parametrize(
        ("text", "frame"),
        [("", b": \n"), ("ping", b": ping\n"), ("a\r\nb\rc\n", b": a\n: b\n: c\n: \n"), ("\ud800", b": ?\n")],
    )
    def test_comment_ends_in_one_line_end(self, text: str, frame: bytes) -> None:
        assert comment(text) == frame


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("a: \r\n\0é\N{GRINNING FACE}"))
types = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=256)
ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128).filter(
    lambda id: (
        not re.match("earliest$|latest$|last=", id)
        and not id.startswith("ssepool.")
        and not re.fullmatch("[0-9a-f]{8}-[0-9]+", id)
    )
)
retries = st.integers(MIN_RETRY_MILLISECONDS, MAX_RETRY_MILLISECONDS)


@given(
    data=texts,
    type=st.none() | types.filter(lambda type: not type.startswith("ssepool.")),
    id=st.none() | ids,
    retry=st.none() | retries,
    cuts=st.lists(st.integers(0, 1000), max_size=8).map(sorted),
)
def test_frame_decodes_to_its_event(
    data: str, type: str | None, id: str | None, retry: int | None, cuts: list[int]
) -> None:
    frame, decoder = Event(data, type=type, id=id, retry=retry).encode(), Decoder()
    messages = [m for a, b in zip([0, *cuts], [*cuts, None], strict=True) for m in decoder.feed(frame[a:b])]
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert messages == [Message(type or "message", lines, id or "")]
    assert decoder.retry == retry


@given(texts)
def test_comment_never_makes_an_event(text: str) -> None:
    assert Decoder().feed(comment(text) + b"\ndata: a\n\n") == [Message("message", "a", "")]


class Colour(str, enum.Enum):  # noqa: UP042 (a StrEnum has no name that could go out instead of its value)
    RED = "red"


class TestData:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ("plain", "plain"),
            ("", ""),
            ("ünï", "ünï"),
            ("ünï".encode(), "ünï"),
            (bytearray(b"b"), "b"),
            (memoryview(b"m"), "m"),
            ({"a": [1, None, True, "é"]}, '{"a":[1,null,true,"é"]}'),
            (None, "null"),
            (17, "17"),
            (2**70, "1180591620717411303424"),
            ({"a": "x\ny"}, '{"a":"x\\ny"}'),
            (Colour.RED, "red"),
        ],
    )
    def test_is_text_once_the_event_is_made(self, data: Any, text: str) -> None:
        event = Event(data)
        assert (type(event.data), event.data) == (str, text)
        assert b"".join([b"data: ", text.encode(), b"\n\n"]) == event.encode()

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (
                "ok\ud800",
                r"data 'ok\\ud800' is not allowed: U\+D800 at position 2; it takes text without lone surrogates",
            ),
            (b"ok\xff", r"data b'ok\\xff' is not UTF-8: invalid start byte at 2"),
            (object(), r"data <object .*> is not allowed: .*; it takes a string, UTF-8 bytes or what JSON can carry"),
            ({(1, 2): 3}, r"data .* is not allowed: Only dicts with str-like or number-like keys"),
            (["\udfff"], r"data .* is not allowed: .*surrogates"),
        ],
    )
    def test_that_cannot_be_text_is_refused(self, data: Any, message: str) -> None:
        with pytest.raises(InvalidEvent, match=message):
            Event(data)

    def test_that_holds_a_number_too_long_to_be_shown_is_refused(self) -> None:
        with pytest.raises(InvalidEvent, match="data <list> is not allowed"):
            Event([10**6000])

    def test_that_contains_itself_is_refused(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(InvalidEvent, match="holds itself"):
            Event(endless)


class TestFields:
    @pytest.mark.parametrize("id", ["", " ", "a b", "a\nb", "a\0", "é", "x" * 129, "a\x7f", 17, b"x"])
    def test_id_that_breaks_reconnection_is_refused(self, id: Any) -> None:
        with pytest.raises(InvalidEvent, match=r"^id .* is not allowed: it takes 1 to 128 visible ASCII characters"):
            Event("x", id=id)

    @pytest.mark.parametrize("id", ["ssepool.completed", "ssepool.", "0123abcd-1", "ffffffff-9999999999999999999"])
    def test_id_of_the_hub_s_own_is_refused(self, id: str) -> None:
        with pytest.raises(
            InvalidEvent, match=r"^id .* is not allowed: ids under 'ssepool\.' and of this form are the"
        ):
            Event("x", id=id)

    @pytest.mark.parametrize("id", ["ssepool", "0123ABCD-1", "0123abcd-", "0123abcd-1x", "order-42", "0123abcde-1"])
    def test_id_that_only_looks_like_it_passes(self, id: str) -> None:
        assert Event("x", id=id).id == id

    @pytest.mark.parametrize("kind", [tuple, list])
    def test_an_event_has_a_hundred_topics_at_most(self, kind: Any) -> None:
        names = [f"t{number}" for number in range(101)]
        assert len(Event("x", kind(names[:100])).topics) == 100
        with pytest.raises(InvalidTopic, match="an event of 101 topics is not allowed; it takes 100 at most"):
            Event("x", kind(names))

    def test_longest_id_passes(self) -> None:
        assert Event("x", id="~" * 128).id == "~" * 128

    @pytest.mark.parametrize(
        ("type", "message"),
        [
            ("", r"type '' is empty; it takes 1 to 256"),
            ("x" * 257, r"type 'xxx.*' has 257 characters; it takes 1 to 256"),
            ("a\nb", r"type 'a\\nb' is not allowed: U\+000A at position 1; it takes no NUL, CR, LF"),
            ("\r", r"U\+000D at position 0"),
            ("a\0", r"U\+0000 at position 1"),
            ("\ud800", r"U\+D800 at position 0"),
            ("ssepool.open", r"type 'ssepool.open' is not allowed: types under 'ssepool.' are the hub's own"),
            (3, r"type 3 is not allowed: it takes a string, not int"),
        ],
    )
    def test_bad_type_is_refused(self, type: Any, message: str) -> None:
        with pytest.raises(InvalidEvent, match=message):
            Event("x", type=type)

    @pytest.mark.parametrize(
        "retry", [-1, 0, 499, 300_001, True, False, 1500.5, "5", 2**31, pytest.param(10**6000, id="huge")]
    )
    def test_bad_retry_is_refused(self, retry: Any) -> None:
        with pytest.raises(InvalidEvent, match=r"^retry .* whole number of milliseconds, 500 to 300000"):
            Event("x", retry=retry)

    @pytest.mark.parametrize("private", [1, None, "yes"])
    def test_bad_private_is_refused(self, private: Any) -> None:
        with pytest.raises(InvalidEvent, match=r"^private .* is not allowed: it takes true or false"):
            Event("x", private=private)

    def test_values_in_messages_are_shortened(self) -> None:
        for fields in ({"id": "x" * 10_000}, {"type": "x" * 10_000}, {"data": {(1,): "x" * 10_000}}):
            with pytest.raises(InvalidEvent) as refused:
                Event(**{"data": "", **fields})
            assert len(str(refused.value)) < 400

    def test_topics_are_checked(self) -> None:
        assert Event("x", ["a", "b"]).topics == ("a", "b")
        for topics in (("a", ""), ["a", "b/../c"], ("a", 1)):
            with pytest.raises(InvalidTopic):
                Event("x", topics)  # type: ignore[arg-type]
        for topics in ("a", None, {"a"}):
            with pytest.raises(InvalidTopic, match=r"^topics .* is not allowed: it takes a tuple or a list of names"):
                Event("x", topics)  # type: ignore[arg-type]

    def test_members_of_string_enumerations_are_their_values(self) -> None:
        event = Event("x", type=Colour.RED, id=Colour.RED, topics=[Colour.RED])
        assert event.encode() == b"id: red\nevent: red\ndata: x\n\n"
        assert type(event.topics[0]) is str


def test_event_is_immutable_and_hashable() -> None:
    event = Event({"a": 1}, ("t",))
    with pytest.raises(AttributeError):
        event.data = "other"  # type: ignore[misc]
    assert {event} == {Event('{"a":1}', ("t",))}


def test_event_survives_msgspec() -> None:
    event = Event("x", ("t",), "type", "id", 5000, True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event
    with pytest.raises(InvalidEvent):
        msgspec.json.decode(b'{"data":"x","id":"a b"}', type=Event)


@pytest.mark.parametrize(
    ("frame", "topics", "size"),
    [
        (b"", (), ENTRY_BYTES),
        (b"data: x\n\n", ("news",), ENTRY_BYTES + 9 + TOPIC_BYTES + 4),
        (b"", ("a", "bc"), ENTRY_BYTES + 2 * TOPIC_BYTES + 3),
        (b"", ("ä",), ENTRY_BYTES + TOPIC_BYTES + 4),
        (b"", ("x" * 1024,) * 100, ENTRY_BYTES + 100 * (TOPIC_BYTES + 1024)),
    ],
)
def test_the_size_of_an_entry_counts_all_that_it_holds(frame: bytes, topics: tuple[str, ...], size: int) -> None:
    assert Entry(1, "1", topics, frame).size == memory_of(frame, topics) == size


# Keys.


@pytest.mark.parametrize("key", ["1", "a b", "\u00e4\U0001f600", "x" * 256])
def test_a_key_is_text(key: str) -> None:
    entry = Event("x", ("rows",), key=key).entry("0" * 8, 1)
    assert (entry.key, entry.removed) == (key, False)
    assert entry.size > Event("x", ("rows",)).entry("0" * 8, 1).size + len(key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "key '' is empty; it takes 1 to 256"),
        ("x" * 257, "has 257 characters; it takes 1 to 256"),
        ("a\nb", "U+000A at position 1; it takes no control characters or lone surrogates"),
        ("\x7f", "U+007F"),
        ("\x85", "U+0085"),
        ("\ud800", "U+D800"),
        (7, "it takes a string, not int"),
    ],
)
def test_a_bad_key_is_refused(key: Any, message: str) -> None:
    for make in (lambda: Event("x", ("rows",), key=key), lambda: Event.tombstone("rows", key)):
        with pytest.raises(InvalidEvent, match=re.escape(message)):
            make()


def test_a_key_needs_a_topic_and_what_removes_a_key() -> None:
    with pytest.raises(InvalidEvent, match="key '7' needs a topic"):
        Event("x", key="7")
    with pytest.raises(InvalidEvent, match="removed needs a key"):
        Event("x", ("rows",), removed=True)
    with pytest.raises(InvalidEvent, match="removed 1 is not allowed: it takes true or false"):
        Event("x", ("rows",), key="7", removed=1)  # type: ignore[arg-type]


def test_a_tombstone_says_what_goes() -> None:
    assert Event.tombstone("rows", "7") == Event("7", ("rows",), type="removed", key="7", removed=True)
    assert Event.tombstone("rows", "7").encode() == b"event: removed\ndata: 7\n\n"
    own = Event.tombstone(("a", "b"), "7", {"id": 7}, type="left", id="x")
    assert own.encode() == b'id: x\nevent: left\ndata: {"id":7}\n\n'


def test_an_event_keeps_its_key_when_it_is_made_anew() -> None:
    event = Event("x", ("rows",), key="7")
    assert Event.of("others", event) == Event("x", ("others",), key="7")
    assert Event.of("rows", event, key="8").key == "8"
    made = Event.of("rows", Event.from_frame("data: x\n\n"), key="7", removed=True)
    assert made.encode() == b"event: removed\ndata: x\n\n"
