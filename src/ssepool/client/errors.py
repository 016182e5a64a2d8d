"""The errors of a client: what may go wrong between it and a hub."""

from __future__ import annotations

from ssepool.errors import SSEPoolError


class ClientError(SSEPoolError):
    """A client could not do what the caller asked for; the root of the errors of clients."""


class Unreachable(ClientError):
    """No answer came: nothing listens at the address, or the connection broke. The request may have arrived."""


class Refused(ClientError):
    """The answer was another one than the client expects for a success."""

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the answer."""
        self.code = code
        """The code of the hub's error, for programs; "" if the answer had none."""


for _error in (ClientError, Unreachable, Refused):
    # Tracebacks show the name that users import.
    _error.__module__ = "ssepool.client"
