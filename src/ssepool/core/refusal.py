"""Refusals: the status, the code and the JSON body with which each error of the package is answered.

A refusal is always `{"error": {"code": ..., "message": ...}}`. `code` is a word for programs and does not change;
`message` is for people and names the value and what is allowed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ssepool.errors import (
    AccessDenied,
    AuthorizeUnavailable,
    BadCredentials,
    BrokerError,
    ConfigError,
    ConnectionReleased,
    DuplicateEvent,
    EventTooLarge,
    Forbidden,
    IdConflict,
    InvalidEvent,
    InvalidGrant,
    InvalidTopic,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    RateExceeded,
    RevocationsFull,
    SSEPoolError,
    TokenExpired,
    Unauthorized,
)

ANSWERS: dict[type[SSEPoolError], tuple[int, str]] = {
    ConfigError: (400, "invalid_setting"),
    InvalidEvent: (400, "invalid_event"),
    EventTooLarge: (413, "event_too_large"),
    DuplicateEvent: (409, "duplicate_event"),
    IdConflict: (409, "id_conflict"),
    InvalidTopic: (400, "invalid_topic"),
    InvalidGrant: (500, "invalid_grant"),  # of a function of the application: what clients present is refused as theirs
    AccessDenied: (403, "access_denied"),
    BadCredentials: (400, "invalid_request"),
    Unauthorized: (401, "unauthorized"),
    TokenExpired: (401, "token_expired"),
    Forbidden: (403, "forbidden"),
    PoolFull: (503, "pool_full"),
    PoolTimeout: (503, "timed_out"),
    PoolClosed: (503, "pool_closed"),
    RateExceeded: (429, "too_many_requests"),
    RevocationsFull: (503, "revocations_full"),
    AuthorizeUnavailable: (503, "authorize_unavailable"),
    ConnectionReleased: (404, "not_found"),
    BrokerError: (503, "broker_error"),
}
"""HTTP status and code of each error of the package; a class that is not listed has those of its base class."""

DEFECT = (500, "internal_error")
"""HTTP status and code of everything that is in no table."""


class ErrorDetails(msgspec.Struct, frozen=True):
    """Why a request is refused."""

    code: Annotated[str, Meta(description="A word for programs; it does not change.")]
    message: Annotated[str, Meta(description="For people: the value and what is allowed.")]


class ErrorBody(msgspec.Struct, frozen=True):
    """The JSON body of every answer that is a refusal."""

    error: Annotated[ErrorDetails, Meta(description="Why the request is refused.")]


def status_and_code(error: SSEPoolError) -> tuple[int, str]:
    """HTTP status and code of an error; `DEFECT` for an error that is no more than an `SSEPoolError`."""
    return next((ANSWERS[cls] for cls in type(error).__mro__ if cls in ANSWERS), DEFECT)


def reason_code(error: SSEPoolError) -> str:
    """The code of an error, as JSON bodies and the `ssepool.close` event of a client without a slot have it."""
    return status_and_code(error)[1]


def refusal_body(code: str, message: str) -> ErrorBody:
    """The body of a refusal."""
    # A lone surrogate, which no JSON can carry, must not turn a refusal into an error of our own.
    return ErrorBody(ErrorDetails(code, message.encode("utf-8", "backslashreplace").decode()))
