"""JSONReply: an answer in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

JSON_HEADERS = [(b"cache-control", b"no-store"), (b"content-type", b"application/json")]
"""The header fields of a `JSONReply` without its length, for answers that do not go through Starlette."""


class JSONReply(Response):
    """A JSON answer of the hub. It shows the state of one moment, so no cache may keep it (RFC 9111, 5.2.2.5)."""

    media_type = "application/json"
    """The media type of the body."""

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content` is anything that msgspec encodes; `headers` are sent beside `Cache-Control`."""
        super().__init__(content, status, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        """The body: the content as JSON."""
        return msgspec.json.encode(content)
