"""Answer: what the application behind `authorize_url` says of a request, read into a grant."""

from __future__ import annotations

from typing import Any

import msgspec

from ssepool.config import KiB
from ssepool.core.grant import Grant
from ssepool.core.rights import Right
from ssepool.errors import InvalidGrant

MAX_ANSWER_BYTES = 64 * KiB
"""Bytes of an answer at most."""
EXPIRES_IN_SECONDS = 300.0
"""For how long a grant lasts that does not say."""
MAX_EXPIRES_IN_SECONDS = 86_400.0
"""For how long a grant lasts at most; what says more lasts so long."""


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of an answer. Its fields are those of `Grant`, but for `expires_in`."""

    subject: str | None = None
    """Who asks."""
    subscribe: list[str | Right] = []
    """What they may read."""
    publish: list[str | Right] = []
    """What they may publish to."""
    publish_parts: list[str] = []
    """What they may decide beside."""
    admin: list[str] = []
    """The parts of administration that they have."""
    data: Any = None
    """What is kept on their connections."""
    expires_in: float = EXPIRES_IN_SECONDS
    """Seconds after which the application is asked again."""
    token_id: str | None = None
    """Names the session, so that it can be revoked."""


def read_answer(body: bytes, asked_at: float) -> Grant:
    """The grant in an answer to a question that was asked then, in seconds since the epoch. Raises `InvalidGrant` for
    anything that is not exactly one."""
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidGrant(f"the answer is not a grant in JSON: {error}") from error
    if not answer.expires_in > 0:
        raise InvalidGrant(f"expires_in {answer.expires_in:g} is not allowed: it takes more than 0 seconds")
    return Grant(
        subject=answer.subject,
        subscribe=answer.subscribe,
        publish=answer.publish,
        publish_parts=answer.publish_parts,  # type: ignore[arg-type]  # which it checks
        admin=answer.admin,  # type: ignore[arg-type]
        data=answer.data,
        expires_at=asked_at + min(answer.expires_in, MAX_EXPIRES_IN_SECONDS),
        issued_at=asked_at,
        token_id=answer.token_id,
    )
