"""Frames: the bytes of everything that the hub says itself."""

from __future__ import annotations

import pytest

from ssepool.core.decoder import Decoder
from ssepool.core.frames import COMPLETED_ID, DIALECT, jittered

FRAMES = {
    "opened": (
        DIALECT.opened("n-1-2", "secret", "n", retry=3000),
        b'event: ssepool.open\nretry: 3000\ndata: {"connection":"n-1-2","token":"secret","node":"n"}\n\n',
    ),
    "queued": (DIALECT.queued(2, 7), b'event: ssepool.queued\ndata: {"position":2,"waiting":7}\n\n'),
    "expiring": (DIALECT.expiring(60), b'event: ssepool.expiring\ndata: {"seconds":60}\n\n'),
    "gap": (
        DIALECT.gap("e-1", "e-9", "expired"),
        b'event: ssepool.gap\ndata: {"requested":"e-1","resumed":"e-9","reason":"expired"}\n\n',
    ),
    "gap of unknown ends": (
        DIALECT.gap(None, None, "lagged", skipped=4),
        b'event: ssepool.gap\ndata: {"requested":null,"resumed":null,"reason":"lagged","skipped":4}\n\n',
    ),
    "closed": (
        DIALECT.closed("kicked", retry=1500),
        b'event: ssepool.close\nretry: 1500\ndata: {"reason":"kicked"}\n\n',
    ),
    "closed for good": (
        DIALECT.closed("completed", retry=None, id=COMPLETED_ID),
        b'id: ssepool.completed\nevent: ssepool.close\ndata: {"reason":"completed"}\n\n',
    ),
    "heartbeat": (DIALECT.heartbeat, b": heartbeat\n"),
}


@pytest.mark.parametrize(("frame", "expected"), FRAMES.values(), ids=FRAMES)
def test_a_frame_has_exactly_these_bytes(frame: bytes, expected: bytes) -> None:
    assert frame == expected


def test_the_head_of_a_stream_has_exactly_these_headers() -> None:
    assert DIALECT.headers == (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"incremental", b"?1"),
        (b"x-content-type-options", b"nosniff"),
    )


def test_what_an_application_calls_things_cannot_break_out_of_its_frame() -> None:
    [message] = Decoder().feed(DIALECT.gap("1\n\ndata: forged", "\r", "expired"))
    assert message.type == "ssepool.gap"
    assert message.data == r'{"requested":"1\n\ndata: forged","resumed":"\r","reason":"expired"}'


@pytest.mark.parametrize(
    ("seconds", "chance", "milliseconds"), [(3.0, 0.0, 3000), (3.0, 0.5, 4500), (3.0, 1.0, 6000), (0.001, 0.0, 1)]
)
def test_a_retry_is_from_once_to_twice_the_setting(seconds: float, chance: float, milliseconds: int) -> None:
    assert jittered(seconds, chance) == milliseconds
