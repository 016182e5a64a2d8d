"""Wire: heads, refusals, and whose name a target in absolute form has."""

from __future__ import annotations

import pytest

from ssepool.runtime.wire import TOO_LARGE, TOO_LATE, TOO_LONG, TOO_MANY, render_head


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


@pytest.mark.parametrize("field", [(b"a", b"b\r\nc: d"), (b"a\n", b"b")])
def test_a_line_break_gets_into_no_head(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(RuntimeError, match="line break"):
        render_head(200, [field])
