"""Latest: what a client that lagged lacks comes in pages, in order and once, and takes little memory of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parts import Streams
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, encode
from ssepool.core.feed import JOIN_BYTES, joined
from ssepool.core.topics import Subscription
from ssepool.runtime.streams.latest import Latest

EVERYTHING = Subscription.of([], ["t*"])


def entries(count: int, *, size: int = 10) -> list[Entry]:
    return [Entry(0, None, (f"t{number}",), chunk(encode(f"{number:0{size}}"))) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "taken"),
    [(1, 10, [1]), (1000, 10, [1000]), (3, JOIN_BYTES, [1, 1, 1]), (8, JOIN_BYTES // 3, [3, 3, 2])],
)
def test_pages_are_bounded_and_are_all_there_is(count: int, size: int, taken: list[int]) -> None:
    given = entries(count, size=size)
    link = SimpleNamespace(replay=None, chunked=True)
    latest = link.replay = Latest(given)
    pages, counts = [], []
    while link.replay is not None:
        pages.append(latest.next(link))
        counts.append(latest.taken)
    assert (b"".join(pages), counts) == (joined(given, True), taken)
    assert not latest.waiting


async def test_a_client_that_lagged_holds_one_page_of_what_it_lacks() -> None:
    streams = Streams(lag_policy="latest", lag_events=3)
    slow, quick = streams.paper(EVERYTHING), streams.paper(EVERYTHING)
    slow.room_left = 0
    size = JOIN_BYTES // 2
    for number in range(20):
        streams.publish(f"{number:0{size}}", topic=f"t{number}")
        streams.delivery._slice()
    assert slow.stalled
    assert len(quick.events()) == 20
    slow.make_room(1000)  # of all that it lacks now it takes so much, and then no more
    assert slow.rest is not None
    assert len(slow.rest) <= JOIN_BYTES + size
    slow.make_room()
    assert [event.lstrip("0") for event in slow.events()] == ["ssepool.gap", "", *map(str, range(1, 20))]
    assert slow.slot is not None
    assert (slow.slot.events, slow.slot.skipped) == (20, 0)
    streams.publish("live", topic="t0")
    streams.delivery._slice()
    assert slow.events()[-1] == "live"
