"""JSONReply: an answer in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

NOT_SNIFFED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Header fields of all answers of one moment: no cache may keep them (RFC 9111, 5.2.2.5), and no browser may take them
for a page because of what a stranger wrote (Fetch standard, 3.6)."""
JSON_HEADERS = [
    (name.lower().encode(), value.encode())
    for name, value in {**NOT_SNIFFED, "Content-Type": "application/json"}.items()
]
"""The header fields of a `JSONReply` without its length, for answers that do not go through Starlette."""


class JSONReply(Response):
    """A JSON answer of the hub. It shows the state of one moment."""

    media_type = "application/json"
    """The media type of the body."""

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content` is anything that msgspec encodes; `headers` are sent beside `NOT_SNIFFED`."""
        super().__init__(content, status, {**NOT_SNIFFED, **(headers or {})})

    def render(self, content: Any) -> bytes:
        """The body: the content as JSON."""
        return msgspec.json.encode(content)
