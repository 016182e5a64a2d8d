"""Reader: the decisions of an event stream's client, without any I/O (WHATWG HTML, sections 9.2.2 and 9.2.3)."""

from __future__ import annotations

import random
from collections.abc import Callable

from ssepool.client.calls import refusal
from ssepool.client.errors import Refused
from ssepool.config import MiB
from ssepool.core.decoder import Decoder, Message

STREAM_TYPE = "text/event-stream"
"""The media type of an event stream."""

RECONNECTION_SECONDS = 3.0
"""The reconnection time as long as no server has sent another one."""
MIN_WAIT_SECONDS = 0.1
"""How long a client waits at least: `retry: 0` must not make a loop that burns the processor."""
MAX_WAIT_SECONDS = 60.0
"""How long failures in a row make a client wait at most; the reconnection time of the server may be longer."""
MAX_RECONNECTION_SECONDS = 86_400.0
"""The longest reconnection time that a client takes from a server: a day."""
JITTER_SHARE = 0.3
"""Up to this share of the wait is added at random, so that not all clients of a restarted server come at once."""


class Reader:
    """One subscription over all its connections: what to send, whether to go on, and how long to wait.

    The caller does the I/O: it sends a GET with `headers()`, gives the answer's head to `opened` and the bytes of the
    body to `feed`. When the connection has ended, or could not be made, it waits for as many seconds as `lost()`
    returns, and begins again.
    """

    def __init__(
        self,
        *,
        last_event_id: str = "",
        max_event_size: int = 16 * MiB,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`last_event_id` is where the subscription begins, "" for now, `max_event_size` is in bytes of one event.

        `chance` returns numbers from 0 up to 1 for the jitter; tests replace it.
        """
        self.last_event_id = last_event_id
        """The id behind which the next request begins: the one that came last, or that the subscription began with."""
        self.reconnection_time = RECONNECTION_SECONDS
        """Seconds to wait before the next attempt, as the server said with `retry:`, without what failures add."""
        self._max_event_size = max_event_size
        self._chance = chance
        self._failures = 0
        self._decoder: Decoder | None = None

    def headers(self) -> dict[str, bytes]:
        """The header fields of the next request, with `Last-Event-ID`, if there is an id, as its UTF-8 bytes."""
        headers = {
            "Accept": STREAM_TYPE.encode(),
            "Cache-Control": b"no-cache",
            # Compression would hold events back until its buffers are full.
            "Accept-Encoding": b"identity",
        }
        if self.last_event_id:
            # RFC 9110, section 5.5: no value has white space at its ends. Browsers take it off, h11 refuses it.
            headers["Last-Event-ID"] = self.last_event_id.encode().strip(b" \t")
        return headers

    def opened(self, url: str, status: int, content_type: str, answer: bytes = b"") -> bool:
        """Whether the answer is a stream to be read; `False` for 204, which ends the subscription for good.

        `url` is for messages; `answer` is the body, or its beginning, if the status is neither 200 nor 204. Raises
        `Refused` for such a status and for another content type: the standard allows no second attempt.
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
        """The messages that these bytes complete. Raises `EventTooLarge` for one that exceeds `max_event_size`."""
        assert self._decoder is not None, "opened() comes first"
        messages = self._decoder.feed(chunk)
        self.last_event_id = self._decoder.last_event_id
        if self._decoder.retry is not None:
            self.reconnection_time = min(self._decoder.retry / 1000, MAX_RECONNECTION_SECONDS)
        return messages

    def lost(self) -> float:
        """Seconds to wait until the next attempt: the reconnection time, doubled for each failed attempt in a row."""
        wait = max(self.reconnection_time, MIN_WAIT_SECONDS)
        if self._decoder is None:
            wait = max(wait, min(wait * 2.0 ** min(self._failures, 30), MAX_WAIT_SECONDS))
            self._failures += 1
        self._decoder = None
        return wait * (1 + JITTER_SHARE * self._chance())
