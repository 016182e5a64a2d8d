"""Seal: by which nodes believe each other's messages, and nobody else's."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Callable

import msgspec

from ssepool import clock
from ssepool.runtime.cluster.messages import Message

logger = logging.getLogger("ssepool")

MAX_AGE_SECONDS = 60.0
"""How old a message may be, and how much two nodes' clocks may differ: both together."""

QUIET_SECONDS = 60.0
"""Seconds between two lines of the log about messages that were dropped."""

MAC_BYTES = 64
"""Length of the code in front of each message: HMAC with SHA-256 (RFC 2104), in hexadecimal digits."""

ENCODER = msgspec.json.Encoder()
"""Of messages and their bodies."""
DECODER = msgspec.json.Decoder(Message)
"""Of messages; the body stays as it is."""


class Seal:
    """Writes messages for the side channel, and reads those that were written with the same key a short time ago.

    The code is over the whole of the message, so nothing of it is looked at before the code was found to be right.
    """

    def __init__(
        self, key: bytes, *, now: Callable[[], float] = clock.now, wall_clock: Callable[[], float] = clock.wall_clock
    ) -> None:
        """`now` is the hub's clock and `wall_clock` the time since the epoch, by which nodes tell how old a message
        is, both in seconds."""
        self._key = key
        self._now = now
        self._wall_clock = wall_clock
        self._said_at = -math.inf
        self._unsaid = 0
        """Messages dropped of which the log does not know yet."""
        self.dropped = 0
        """Messages that were not believed."""

    def close(self, message: Message) -> bytes:
        """The bytes of a message that is sent now."""
        message.time = self._wall_clock()
        data = ENCODER.encode(message)
        return self._code(data) + data

    def open(self, data: bytes) -> Message | None:
        """The message in these bytes; None if it is not to be believed. Raises as `msgspec.json.decode` does."""
        code, content = data[:MAC_BYTES], data[MAC_BYTES:]
        if not hmac.compare_digest(code, self._code(content)):
            self._drop("not written with this cluster's key: cluster_key, or the broker's password, has to be the same")
            return None
        message = DECODER.decode(content)
        age = self._wall_clock() - message.time
        if abs(age) > MAX_AGE_SECONDS:
            self._drop(f"written {age:.0f} s ago by this machine's clock; clocks may differ by {MAX_AGE_SECONDS:.0f} s")
            return None
        return message

    def _code(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256").hex().encode()

    def _drop(self, why: str) -> None:
        self.dropped += 1
        self._unsaid += 1
        now = self._now()
        if now - self._said_at >= QUIET_SECONDS:
            logger.warning("messages of the side channel were dropped: %d; the last one was %s", self._unsaid, why)
            self._said_at, self._unsaid = now, 0
