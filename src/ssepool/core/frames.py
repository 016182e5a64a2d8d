"""Frames: what the hub itself puts on the wire, beside the events that are published."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypedDict, Unpack

import msgspec

from ssepool.core.event import MAX_RETRY_MILLISECONDS, Event, comment, encode
from ssepool.core.states import Reason

COMPLETED_ID = "ssepool.completed"
"""The id of a finished run's last frame. A client that comes back with it has everything and is told to stay away."""

FAILED_ID = "ssepool.failed"
"""The id of a failed run's last frame. A client that comes back with it is told to stay away: its generator would run,
and cost, once more from the beginning."""


HEARTBEAT_TYPE = "ssepool.heartbeat"
"""The type of a heartbeat for clients that asked for events, and chose no type themselves."""

MAX_DIALECTS = 256
"""Dialects that are remembered, so that all streams of one call of an application share theirs."""


class DialectFields(TypedDict, total=False):
    """What an application may say of how the hub speaks to a client."""

    own_events: bool
    """Whether the hub's own events, `ssepool.open` and the like, are events. For clients that parse every event as one
    of the application's they are comments, which nobody parses; refusals have honest statuses then. True by default."""
    final: Any
    """Data of a last event, like `[DONE]`, sent when the generator has come to its end, and only then."""
    end_event: str
    """The type of that last event; its data is empty without `final`."""
    heartbeat_event: str
    """The type of the events that heartbeats are for a client that watches for them; without it they are comments."""


class Dialect:
    """How the hub speaks to one client: the head of its stream, and every frame that no publisher wrote.

    All ways to a client ask the dialect of its `Visit`, so another dialect is a subclass and nothing else. `retry` is
    in milliseconds everywhere.
    """

    def __init__(
        self, *, own_events: bool = True, ending: Event | None = None, heartbeat_type: str | None = None
    ) -> None:
        self.own_events = own_events
        """Whether the hub's own events are events; else they are comments."""
        self.ending = ending
        """The last event of a stream that has come to its end; None if nothing but its end says so."""
        if heartbeat_type is not None:
            self.heartbeat = encode("{}", type=heartbeat_type)

    @staticmethod
    def of(**fields: Unpack[DialectFields]) -> Dialect:
        """The dialect that is to be spoken; the same one for the same fields. Raises `InvalidEvent`."""
        final, end_event = fields.get("final"), fields.get("end_event")
        heartbeat = fields.get("heartbeat_event")
        if heartbeat is not None and heartbeat != HEARTBEAT_TYPE:
            heartbeat = Event("", type=heartbeat).type
        ending = None if final is None and end_event is None else Event("" if final is None else final, type=end_event)
        return _shared(bool(fields.get("own_events", True)), ending, heartbeat)

    headers: tuple[tuple[bytes, bytes], ...] = (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"incremental", b"?1"),
        (b"x-content-type-options", b"nosniff"),
    )
    """`Incremental` asks proxies to pass each part on as it comes (RFC 10036).

    No charset (one browser refuses all but utf-8), no Content-Length, and nothing for which a proxy holds data back.
    """

    heartbeat = comment("heartbeat")
    """One line, no blank line behind it: a blank line makes one popular client fire an empty message."""

    def opened(self, connection: str, token: str, node: str, *, retry: int, id: str | None = None) -> bytes:
        """The first event of each stream. Its `retry` is what the client waits if the stream breaks without a goodbye:
        browsers of one kind would otherwise all come back in the same moment. Its `id` is the place at which the
        stream begins, so that a client that has had no event comes back to it."""
        # None of the three has a character that JSON escapes, and this is written for each client.
        text = f'{{"connection":"{connection}","token":"{token}","node":"{node}"}}'
        return self._written("open", text, id, retry)

    def queued(self, position: int, waiting: int) -> bytes:
        """The client's place in the waiting queue, from 1 on, and how many wait in all."""
        return self._own("queued", {"position": position, "waiting": waiting})

    def gap(self, requested: str | None, resumed: str | None, reason: str, **more: Any) -> bytes:
        """Something is missing here: the id that was asked for, the id at which delivery goes on (None if that is not
        known), and the reason."""
        return self._own("gap", {"requested": requested, "resumed": resumed, "reason": reason, **more})

    def empty(self, id: str) -> bytes:
        """Nothing is kept of what the client asked for; its stream begins at the place that `id` names."""
        return self._own("empty", {}, id=id)

    def expiring(self, seconds: int) -> bytes:
        """The client's grant runs out in so many seconds: it is time to renew what it presents."""
        return self._own("expiring", {"seconds": seconds})

    def closed(self, reason: str, *, retry: int | None, id: str | None = None) -> bytes:
        """The last event of a stream that the hub ends, behind the application's own if the stream is complete. Both
        have the id then by which a client that comes back is known to have everything."""
        frame = self._own("close", {"reason": reason}, id=id, retry=retry)
        if self.ending is not None and reason == Reason.COMPLETED.value:
            return self.ending.encode(COMPLETED_ID) + frame
        return frame

    def _own(self, type: str, data: Any, *, id: str | None = None, retry: int | None = None) -> bytes:
        return self._written(type, msgspec.json.encode(data).decode(), id, retry)

    def _written(self, type: str, text: str, id: str | None, retry: int | None) -> bytes:
        if self.own_events:
            return encode(text, type=f"ssepool.{type}", id=id, retry=retry)
        # A `retry:` counts as soon as its line is read. With a blank line behind it, some clients take it for an event.
        # So does the id for `fetch`-based clients. A browser forgets it here, and is to come back as late as it may.
        failed = id == FAILED_ID
        line = f"id: {id}\n" if failed else ""
        if failed or retry is not None:
            line += f"retry: {MAX_RETRY_MILLISECONDS if failed else retry}\n"
        return line.encode() + comment(f"ssepool.{type} {text}")


@lru_cache(MAX_DIALECTS)
def _shared(own_events: bool, ending: Event | None, heartbeat_type: str | None) -> Dialect:
    return Dialect(own_events=own_events, ending=ending, heartbeat_type=heartbeat_type)


DIALECT = Dialect.of()
"""The hub's own dialect: events whose types begin with `ssepool.`."""

COMMENTS = Dialect.of(own_events=False)
"""The dialect in which all of these are comments."""

BEATING = Dialect.of(heartbeat_event=HEARTBEAT_TYPE)
"""The hub's own dialect with heartbeats that are events, for pages that watch for them: they cannot see comments."""


def jittered(seconds: float, chance: float) -> int:
    """Milliseconds for a `retry:` line: `seconds`, and up to as much again by `chance` (a number from 0 to 1), so that
    clients that were sent away together do not come back together."""
    return int(seconds * 1000 * (1 + chance))
