"""Reader: what a client of an event stream decides, without any I/O (WHATWG HTML, 9.2.2 and 9.2.3)."""

from __future__ import annotations

import random
from collections.abc import Callable

from ssepool.client.calls import refusal
from ssepool.client.errors import Refused
from ssepool.config import MiB
from ssepool.core.decoder import Decoder, Message

STREAM_TYPE = "text/event-stream"

RECONNECTION_SECONDS = 3.0
"""Seconds until a client comes back, as long as no server has said otherwise."""
MIN_WAIT_SECONDS = 0.1
"""Seconds that a client waits at least: `retry: 0` must not make a loop that burns the processor."""
MAX_WAIT_SECONDS = 60.0
"""Seconds that failures in a row may grow the wait to; a server's own `retry` may be longer."""
MAX_RECONNECTION_SECONDS = 86_400.0
JITTER_SHARE = 0.3
"""The part of the wait that is added at random, so that not all clients of a restarted server come at once."""


class Reader:
    """One subscription over all its connections: what to send, whether to go on, and how long to wait.

    Whoever does the I/O sends a GET with `headers()`, shows the answer's head to `opened`, gives the bytes to `feed`,
    and when the connection is over, or never came to be, waits as many seconds as `lost` says and begins again.
    """

    def __init__(
        self,
        *,
        last_event_id: str = "",
        max_event_size: int = 16 * MiB,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.last_event_id = last_event_id
        self.reconnection_time = RECONNECTION_SECONDS
        self._max_event_size = max_event_size
        self._chance = chance
        self._failures = 0
        self._decoder: Decoder | None = None

    def headers(self) -> dict[str, bytes]:
        """The headers of the next request. `Last-Event-ID` is there only if there is one, as its UTF-8 bytes."""
        headers = {
            "Accept": STREAM_TYPE.encode(),
            "Cache-Control": b"no-cache",
            # Compression would hold events back until its buffers are full.
            "Accept-Encoding": b"identity",
        }
        if self.last_event_id:
            # A header's value has no white space at its ends: a browser takes it off, h11 refuses to send it.
            headers["Last-Event-ID"] = self.last_event_id.encode().strip(b" \t")
        return headers

    def opened(self, url: str, status: int, content_type: str, answer: bytes = b"") -> bool:
        """Whether the answer is a stream to be read; `False` for 204, which ends the subscription for good.

        `answer` is the body, or the beginning of it, where the status is neither 200 nor 204. Raises `Refused` for
        these and for another content type: the standard allows no second attempt.
        """
        if status == 204:
            return False
        if status != 200:
            raise refusal(status, answer, url)
        if content_type.partition(";")[0].strip().lower() != STREAM_TYPE:
            raise Refused(f"{url} answered with {content_type or 'no content type'}, not {STREAM_TYPE}", status=status)
        self._failures = 0
        self._decoder = Decoder(self._max_event_size, last_event_id=self.last_event_id)
        return True

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that these bytes complete; raises `EventTooLarge` beyond `max_event_size`."""
        assert self._decoder is not None, "opened() comes first"
        messages = self._decoder.feed(chunk)
        self.last_event_id = self._decoder.last_event_id
        if self._decoder.retry is not None:
            self.reconnection_time = min(self._decoder.retry / 1000, MAX_RECONNECTION_SECONDS)
        return messages

    def lost(self) -> float:
        """Seconds until the next attempt: the reconnection time, doubled for each attempt in a row that failed."""
        wait = max(self.reconnection_time, MIN_WAIT_SECONDS)
        if self._decoder is None:
            wait = max(wait, min(wait * 2.0 ** min(self._failures, 30), MAX_WAIT_SECONDS))
            self._failures += 1
        self._decoder = None
        return wait * (1 + JITTER_SHARE * self._chance())
