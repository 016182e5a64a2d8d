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
    AlreadyOpen,
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
    RequestError,
    RevocationsFull,
    SSEPoolError,
    TokenExpired,
    Unauthorized,
)

_CODES: dict[type[RequestError], str] = {
    InvalidEvent: "invalid_event",
    EventTooLarge: "event_too_large",
    DuplicateEvent: "duplicate_event",
    IdConflict: "id_conflict",
    InvalidTopic: "invalid_topic",
    AccessDenied: "access_denied",
    BadCredentials: "invalid_request",
    Unauthorized: "unauthorized",
    TokenExpired: "token_expired",
    Forbidden: "forbidden",
    PoolFull: "pool_full",
    PoolTimeout: "timed_out",
    PoolClosed: "pool_closed",
    RateExceeded: "too_many_requests",
    RevocationsFull: "revocations_full",
    AuthorizeUnavailable: "authorize_unavailable",
    ConnectionReleased: "not_found",
    BrokerError: "broker_error",
}
ANSWERS: dict[type[SSEPoolError], tuple[int, str]] = {
    ConfigError: (400, "invalid_setting"),
    AlreadyOpen: (500, "already_open"),
    InvalidGrant: (500, "invalid_grant"),  # of a function of the application: what clients present is refused as theirs
    **{cls: (cls.status_code, code) for cls, code in _CODES.items()},
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
