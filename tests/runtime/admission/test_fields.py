"""An application's own header fields: which there may be, and what becomes of them on an answer that is no stream."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers

from ssepool.runtime.admission.fields import fields_of, head_of


def test_fields_are_as_asgi_has_them_and_may_come_twice() -> None:
    headers = Headers(raw=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    assert fields_of(headers) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert fields_of({"X-Name": "\xfcml", "Empty": ""}) == [(b"x-name", b"\xfcml"), (b"empty", b"")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5"},
        {"content-type": "a/b"},
        {"Content-Encoding": "br"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"a b": "c"},
        {"": "c"},
        {"a": "b\r\nc: d"},
        {"a": "b\0"},
        {"a": "\u20ac"},
        {"\xe4": "a"},
        {"a": 5},
    ],
)
def test_what_no_answer_can_have_is_refused_by_name(headers: Any) -> None:
    with pytest.raises(ValueError, match=r"header .* is not allowed"):
        fields_of(headers)


def test_a_reply_has_what_was_added_and_nothing_of_the_stream_s_own() -> None:
    usual = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    stream = [usual[0], usual[2], (b"cache-control", b"private"), (b"x-own", b"1"), (b"content-length", b"7")]
    reply = [(b"content-type", b"application/json"), (b"retry-after", b"3")]
    assert head_of(stream, reply, usual) == [*reply, (b"cache-control", b"private"), (b"x-own", b"1")]
    assert head_of(usual, [], usual) == []
