"""What cannot be read is counted, and said: of a newer version once a minute."""

from __future__ import annotations

import pytest

from ssepool.brokers.record import unreadable
from ssepool.runtime.streams.unread import Unread


def test_records_of_a_newer_version_are_counted_and_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    unread = Unread("redis://h")
    for position, now in [(1, 0.0), (3, 10.0), (5, 59.0), (7, 60.0), (9, 61.0)]:
        unread.pass_over([unreadable(position), unreadable(position + 1, is_newer=True)], now)
    assert unread.records == 10
    said = (
        "redis://h has records of a newer ssepool, which are skipped here, {} so far since this was last said, up to "
    )
    assert caplog.messages == [
        said.format(2) + "the position 2; update this node",
        said.format(6) + "the position 8; update this node",
    ]


def test_others_are_said_at_once_with_their_places(caplog: pytest.LogCaptureFixture) -> None:
    unread = Unread("redis://h")
    for position in (3, 9):
        unread.pass_over([unreadable(position), unreadable(position + 1)], 0.0)
    said = "redis://h has records that cannot be read, and are skipped, at the positions"
    assert (unread.records, caplog.messages) == (4, [f"{said} 3 to 4", f"{said} 9 to 10"])
