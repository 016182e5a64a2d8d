"""Wire: heads, refusals, and whose name a target in absolute form has."""

from __future__ import annotations

import pytest

from ssepool.runtime.wire import TOO_LARGE, TOO_LATE, TOO_LONG, TOO_MANY, has_length, render_head


@pytest.mark.parametrize(
    ("answer", "status"), [(TOO_LATE, b"408"), (TOO_LONG, b"414"), (TOO_LARGE, b"431"), (TOO_MANY, b"503")]
)
def test_a_refusal_is_whole_and_ends_the_connection(answer: bytes, status: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nconnection: close" in head
    assert b"content-length: %d" % len(body) in head


def test_a_head_without_keep_alive_closes_the_connection_whatever_the_application_says() -> None:
    head = render_head(200, [(b"Connection", b"keep-alive"), (b"a", b"b")])
    assert head == b"HTTP/1.1 200 OK\r\na: b\r\nconnection: close\r\n\r\n"
    assert render_head(201, [], keep_alive=True) == b"HTTP/1.1 201 Created\r\n\r\n"


def test_a_chunked_head_does_not_announce_the_end_of_the_connection() -> None:
    head = render_head(200, [(b"Connection", b"close"), (b"transfer-encoding", b"gzip"), (b"a", b"b")], chunked=True)
    assert head == b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "headers", "known"),
    [(200, [], False), (200, [(b"Content-Length", b"3")], True), (204, [], True), (304, [], True)],
)
def test_the_length_of_a_body_is_known_or_not(status: int, headers: list[tuple[bytes, bytes]], known: bool) -> None:
    assert has_length(status, headers) is known


@pytest.mark.parametrize("field", [(b"a", b"b\r\nc: d"), (b"a\n", b"b")])
def test_a_line_break_gets_into_no_head(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(RuntimeError, match="line break"):
        render_head(200, [field])
