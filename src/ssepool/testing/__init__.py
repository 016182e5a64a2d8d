"""For the tests of applications: streams without sockets, a clock that jumps, and whatever may happen to a stream.

async with virtual_clock() as clock, stream(app, "/events?topic=a") as s:
    await s.expect("price", {"euro": 17})
    await clock.advance(15)
    await s.expect_heartbeat()

docs/testing.md tells everything. Nothing here needs more than ssepool itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssepool.testing.client import Stream, stream
    from ssepool.testing.clock import VirtualClock, virtual_clock
    from ssepool.testing.hubs import assert_all_slots_free, expire, fill, kick, make_gap
    from ssepool.testing.lifespan import running
    from ssepool.testing.received import ANY, Received
    from ssepool.testing.recording import Published, Recording, recorded
    from ssepool.testing.serving import serve

__all__ = [
    "ANY",
    "Published",
    "Received",
    "Recording",
    "Stream",
    "VirtualClock",
    "assert_all_slots_free",
    "expire",
    "fill",
    "kick",
    "make_gap",
    "recorded",
    "running",
    "serve",
    "stream",
    "virtual_clock",
]

_LAZY = {
    "VirtualClock": "clock",
    "virtual_clock": "clock",
    "assert_all_slots_free": "hubs",
    "expire": "hubs",
    "fill": "hubs",
    "kick": "hubs",
    "make_gap": "hubs",
    "running": "lifespan",
    "ANY": "received",
    "Received": "received",
    "Published": "recording",
    "Recording": "recording",
    "recorded": "recording",
    "serve": "serving",
    "Stream": "client",
    "stream": "client",
}
"""The module of each name, loaded when it is first used: the pytest plugin is loaded by every run of pytest."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ssepool.testing.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
