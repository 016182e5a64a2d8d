"""Seal: which messages are believed, and how often the log tells of those that are not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssepool.runtime.cluster.messages import Message
from ssepool.runtime.cluster.seal import MAC_BYTES, MAX_AGE_SECONDS, QUIET_SECONDS, Seal

KEY = b"key"
KICK = Message("kick", "abc", "def", 3, body=msgspec.Raw(b'{"id":"def-0-1","seconds":1.0}'))


class Clock:
    """Time that a test sets."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def seal(key: bytes = KEY, *, at: float = 1e9, now: Any = lambda: 0.0) -> Seal:
    return Seal(key, now=now, wall_clock=lambda: at)


def test_a_message_is_read_as_it_was_written() -> None:
    read = seal().open(seal().close(KICK))
    assert read is not None
    assert (read.kind, read.sender, read.to, read.ref, read.time) == ("kick", "abc", "def", 3, 1e9)
    assert bytes(read.body) == bytes(KICK.body)


def test_a_message_of_another_key_is_dropped() -> None:
    reader = seal()
    assert reader.open(seal(b"another").close(KICK)) is None
    assert reader.dropped == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"kick", b"kill"),  # kind
        (b"abc", b"xyz"),  # sender
        (b'"to":"def"', b'"to":"abc"'),
        (b'"to":"def",', b""),
        (b'"ref":3', b'"ref":4'),
        (b"1000000000", b"1000000001"),  # time
        (b"def-0-1", b"def-0-2"),  # body
    ],
)
def test_no_part_of_a_message_can_be_changed(old: bytes, new: bytes) -> None:
    data = seal().close(KICK)
    changed = data.replace(old, new, 1)
    assert changed != data
    assert seal().open(changed) is None


@pytest.mark.parametrize("cut", [slice(0), slice(MAC_BYTES - 1), slice(MAC_BYTES), slice(-1), slice(MAC_BYTES, None)])
def test_a_piece_of_a_message_is_dropped(cut: slice) -> None:
    assert seal().open(seal().close(KICK)[cut]) is None


@pytest.mark.parametrize("code", [b"\xff" * MAC_BYTES, b"0" * MAC_BYTES])
def test_a_code_of_whatever_bytes_is_wrong(code: bytes) -> None:
    assert seal().open(code + seal().close(KICK)[MAC_BYTES:]) is None


def test_what_is_no_message_is_an_error_only_with_the_right_code() -> None:
    reader = seal()
    with pytest.raises(msgspec.DecodeError):
        reader.open(reader._code(b"[1]") + b"[1]")
    assert reader.open(b"[1]") is None
    assert reader.dropped == 1


@pytest.mark.parametrize(
    ("age", "believed"),
    [(0.0, True), (MAX_AGE_SECONDS, True), (-MAX_AGE_SECONDS, True), (60.1, False), (-60.1, False), (1e9, False)],
)
def test_a_message_is_believed_for_a_minute_by_clocks_that_differ(age: float, believed: bool) -> None:
    reader = seal(at=1e9 + age)
    assert (reader.open(seal().close(KICK)) is not None) is believed
    assert reader.dropped == (not believed)


def test_the_log_tells_of_dropped_messages_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(500.0)
    reader = seal(now=clock)
    for _ in range(3):
        reader.open(b"x" * 100)
    assert len(caplog.messages) == 1
    clock.seconds += QUIET_SECONDS - 1
    reader.open(b"x" * 100)
    assert len(caplog.messages) == 1
    clock.seconds += 1
    reader.open(seal(at=1e9 - 120).close(KICK))
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "messages of the side channel were dropped: 1",
        "messages of the side channel were dropped: 4",
    ]
    assert "cluster_key" in caplog.messages[0]
    assert "written 120 s ago" in caplog.messages[1]
    assert reader.dropped == 5


def test_neither_the_log_nor_a_repr_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    reader = seal(b"hunter2")
    reader.open(b"x" * 100)
    assert "hunter2" not in repr(reader) + caplog.text
