"""What may go wrong between a client and a hub."""

from __future__ import annotations

from ssepool.errors import SSEPoolError


class ClientError(SSEPoolError):
    """A client could not do what was asked."""


class Unreachable(ClientError):
    """No answer came: nothing listens at the address, or the connection broke. What was sent may have arrived."""


class Refused(ClientError):
    """The answer was not the one that was asked for.

    `status` is that of the HTTP answer, `code` the word for programs from the hub's error, "" if there was none.
    """

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


for _error in (ClientError, Unreachable, Refused):
    # Tracebacks show the name that users import.
    _error.__module__ = "ssepool.client"
