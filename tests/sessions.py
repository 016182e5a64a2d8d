"""Sessions as an application may have them: a cookie that names a user, and when it runs out."""

from __future__ import annotations

import asyncio
import time

from ssepool import Grant
from ssepool.http.access.asking import Asking

TOPICS = ("news",)
"""What every user may read."""

OPERATOR = Grant(subject="operator", publish=["*"], publish_parts=["id", "retry", "public"], admin=["metrics", "kick"])
"""Who comes without a session."""


def session(subject: str, seconds: float | None = None) -> dict[str, str]:
    """The header with the cookie of a session that runs out in so many seconds."""
    return {"Cookie": f"session={session_value(subject, seconds)}"}


def session_value(subject: str, seconds: float | None = None) -> str:
    return subject if seconds is None else f"{subject}:{time.time() + seconds}"


def at_once(asking: Asking) -> Grant:
    """The grant of a session."""
    value = asking.cookies.get("session")
    if value is None:
        return OPERATOR
    subject, _, until = value.partition(":")
    return Grant(subject=subject, subscribe=TOPICS, expires_at=float(until) if until else None)


async def in_time(asking: Asking) -> Grant:
    """As `at_once`, where that takes a while."""
    await asyncio.sleep(0)
    return at_once(asking)


SOURCES = {"at_once": at_once, "in_time": in_time}
"""By the value of the setting `sessions`."""
