"""Frames: the bytes of everything that the hub says itself."""

from __future__ import annotations

import pytest

from ssepool.core.decoder import Decoder
from ssepool.core.frames import BEATING, COMMENTS, COMPLETED_ID, DIALECT, FAILED_ID, Dialect, jittered

FRAMES = {
    "opened": (
        DIALECT.opened("n-1-2", "secret", "n", retry=3000),
        b'event: ssepool.open\nretry: 3000\ndata: {"connection":"n-1-2","token":"secret","node":"n"}\n\n',
    ),
    "opened at a place": (
        DIALECT.opened("n-1-2", "secret", "n", retry=1, id="00c0ffee-0"),
        b'id: 00c0ffee-0\nevent: ssepool.open\nretry: 1\ndata: {"connection":"n-1-2","token":"secret","node":"n"}\n\n',
    ),
    "opened at a place, as a comment": (
        COMMENTS.opened("n-1-2", "secret", "n", retry=3000, id="00c0ffee-0"),
        b'retry: 3000\n: ssepool.open {"connection":"n-1-2","token":"secret","node":"n"}\n',
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
    "opened, as a comment": (
        COMMENTS.opened("n-1-2", "secret", "n", retry=3000),
        b'retry: 3000\n: ssepool.open {"connection":"n-1-2","token":"secret","node":"n"}\n',
    ),
    "queued, as a comment": (COMMENTS.queued(2, 7), b': ssepool.queued {"position":2,"waiting":7}\n'),
    "a forged gap, as a comment": (
        COMMENTS.gap("\n\ndata: x", None, "expired"),
        b': ssepool.gap {"requested":"\\n\\ndata: x","resumed":null,"reason":"expired"}\n',
    ),
    "closed for good, as a comment": (
        COMMENTS.closed("error", retry=None, id=FAILED_ID),
        b'id: ssepool.failed\nretry: 300000\n: ssepool.close {"reason":"error"}\n',
    ),
    "completed, as a comment": (
        COMMENTS.closed("completed", retry=None, id=COMPLETED_ID),
        b': ssepool.close {"reason":"completed"}\n',
    ),
    "the last event": (
        Dialect.of(own_events=False, final="[DONE]").closed("completed", retry=None, id=COMPLETED_ID),
        b'id: ssepool.completed\ndata: [DONE]\n\n: ssepool.close {"reason":"completed"}\n',
    ),
    "the last event of a type": (
        Dialect.of(end_event="done").closed("completed", retry=None, id=COMPLETED_ID),
        b"id: ssepool.completed\nevent: done\ndata: \n\n"
        b'id: ssepool.completed\nevent: ssepool.close\ndata: {"reason":"completed"}\n\n',
    ),
    "not the last event": (
        Dialect.of(own_events=False, final="[DONE]").closed("shutdown", retry=1),
        b'retry: 1\n: ssepool.close {"reason":"shutdown"}\n',
    ),
    "heartbeat, as an event": (BEATING.heartbeat, b"event: ssepool.heartbeat\ndata: {}\n\n"),
    "heartbeat of a type": (Dialect.of(heartbeat_event="ping").heartbeat, b"event: ping\ndata: {}\n\n"),
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


def test_streams_that_are_wanted_alike_share_a_dialect() -> None:
    assert Dialect.of() is DIALECT
    assert Dialect.of(own_events=True) is DIALECT
    assert Dialect.of(heartbeat_event="ssepool.heartbeat") is BEATING
    done = Dialect.of(own_events=False, final={"done": True}, end_event="end")
    assert Dialect.of(end_event="end", final='{"done":true}', own_events=False) is done
    assert Dialect.of(own_events=False, end_event="end") is not done
