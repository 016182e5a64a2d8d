"""Audit: writes down who administers the hub, and whom its door refuses: on the logger `ssepool.audit`, and in the
trail that `GET /audit` shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from ssepool.core.audit import MAX_TEXT_CHARACTERS, Entry, Trail
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.refusal import status_and_code
from ssepool.errors import AccessDenied
from ssepool.http.access.gate import GATE, ORDERED, Gate

logger = logging.getLogger("ssepool.audit")


class Audit:
    """What an application of a hub writes down."""

    def __init__(self, trail: Trail, now: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """`now` is the hub's clock, and `wall_clock` the time since the epoch, in seconds."""
        self._trail = trail
        self._now = now
        self._wall_clock = wall_clock

    def administered(self, request: Request, grant: Grant, status: int) -> None:
        """Somebody was allowed a part of administration, and this is the status of the answer."""
        self._add(request.scope, grant, allowed=True, status=status)

    def refused(self, request: Request, error: AccessDenied) -> None:
        """A request was refused for want of rights."""
        grant = error.grant if isinstance(error.grant, Grant) else STRANGER
        why = str(error)[:MAX_TEXT_CHARACTERS]
        self._add(request.scope, grant, allowed=False, status=status_and_code(error)[0], why=why)

    def _add(
        self, scope: Mapping[str, Any], grant: Grant, *, allowed: bool, status: int, why: str | None = None
    ) -> None:
        gate: Gate | None = scope.get(GATE)
        client = scope.get("client")
        entry = Entry(
            time=self._wall_clock(),
            action=gate.needs if gate is not None else "",
            method=scope["method"][:MAX_TEXT_CHARACTERS],
            path=gate.path if gate is not None else "",
            parts={**_clipped(scope.get("path_params", {})), **_clipped(scope.get(ORDERED, {}))},
            ip=(client[0] or None) if client else None,
            subject=grant.subject,
            issuer=grant.issuer,
            token_id=grant.token_id,
            allowed=allowed,
            status=status,
            why=why,
        )
        written = self._trail.add(entry, self._now())
        if written is not None and logger.isEnabledFor(logging.INFO):
            logger.info("%s", written.line())


def _clipped(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of bounded size, that JSON can carry."""
    return {
        name: value
        if isinstance(value, int | float)
        else str(value)[:MAX_TEXT_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        for name, value in parts.items()
    }
