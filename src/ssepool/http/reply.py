"""JSONReply: an answer in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

JSON_HEADERS = [(b"cache-control", b"no-store"), (b"content-type", b"application/json")]
"""What a `JSONReply` has, beside its length."""


class JSONReply(Response):
    """What the hub answers in JSON: always the state of this moment, so no cache may keep it."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)
