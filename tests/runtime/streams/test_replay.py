"""Replay: what a client missed, page by page, up to the exact place where its feed goes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from parts import TO_NEWS, Paper, Streams
from scripted_broker import Heard, Scripted
from ssepool.brokers.record import unreadable
from ssepool.config import HubConfig
from ssepool.core.decoder import Decoder
from ssepool.core.frames import DIALECT
from ssepool.core.states import LinkState, Reason
from ssepool.core.timelines import Timeline
from ssepool.core.topics import Subscription
from ssepool.runtime.streams import replay as replay_module
from ssepool.runtime.streams.follower import CHECK_SECONDS
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.replay import RETRY_SECONDS, Replay
from ssepool.runtime.tasks import Tasks
from virtual import in_virtual_time, now

AWHILE = 10 * CHECK_SECONDS
"""Seconds in which everything that is to happen has happened."""


class Following:
    """A log with its feeds, and clients that come back. Opened and closed with `async with`."""

    def __init__(self, count: int, **settings: Any) -> None:
        """The broker has so many entries."""
        self.broker = Scripted(HubConfig(**settings))
        self.broker.put(count)
        self.streams = Streams(now=now(), **settings)
        feeds = self.streams.feeds
        self.log = EventLog(self.broker, feeds.dispatch, feeds.announce_loss, self.streams.delivery.room, now())
        self.tasks = Tasks()

    async def __aenter__(self) -> Following:
        await self.log.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close(AWHILE)
        await self.log.close()

    def come_back(
        self,
        wanted: str | None = None,
        *,
        after: int | None = None,
        subscription: Subscription = TO_NEWS,
        room: int = 10**9,
    ) -> Paper:
        """A client that has its slot and room for so many bytes, and is given what it missed."""
        link = Paper(self.streams.links)
        link.room_left = room
        self.streams.give_slot(link)
        link.replay = replay = Replay(
            self.log, self.streams.feeds, self.tasks, subscription, wanted=wanted, after=after
        )
        replay.begin(link)
        link.flush()
        return link


def gaps(link: Paper) -> list[str]:
    """What gap notices said."""
    return [message.data for message in Decoder().feed(link.written) if message.type == "ssepool.gap"]


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


# Where a client goes on.


@pytest.mark.parametrize("window", [1, 10**6], ids=["from the broker", "from memory"])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0000000a-3", numbers(4, 9)),
        ("0000000a-9", []),
        ("earliest", numbers(1, 9)),
        ("chosen", numbers(6, 9)),
        ("unknown", ["ssepool.gap", *numbers(1, 9)]),
        ("0000000b-3", ["ssepool.gap", *numbers(1, 9)]),
    ],
)
@in_virtual_time
async def test_a_client_is_given_all_behind_the_id_that_it_names(wanted: str, expected: list[str], window: int) -> None:
    following = Following(9, window_bytes=window)
    following.broker.entries[4] = replace(following.broker.entries[4], id="chosen")
    async with following:
        link = following.come_back(wanted)
        await asyncio.sleep(AWHILE)
        assert link.state is LinkState.FOLLOWING
        following.broker.put(1)
        await asyncio.sleep(AWHILE)
    assert link.events() == [*expected, "10"]
    assert link.slot is not None
    assert link.slot.events == len(expected) + 1 - ("ssepool.gap" in expected)
    for gap in gaps(link):
        assert gap.startswith(f'{{"requested":"{wanted}","resumed":')
        assert gap.endswith('"reason":"unknown_id"}')


@pytest.mark.parametrize(("wanted", "expected"), [("00000b0b-7", ["8"]), ("0000000a-5", ["6", "7", "8"])])
@in_virtual_time
async def test_a_place_that_is_looked_for_while_the_history_gets_another_name_is_one_under_the_new_name(
    wanted: str, expected: list[str]
) -> None:
    """Another node has had what comes behind the new name already, and the client comes from there."""
    following = Following(5)
    broker = following.broker
    broker.floor = 0
    async with following:
        broker.asleep = True
        broker.timelines, broker.epoch = (Timeline("0000000a", 5),), "00000b0b"
        broker.put(3)
        link = following.come_back(wanted)
        await asyncio.sleep(2 * CHECK_SECONDS)
        broker.asleep = False
        broker.ring()
        await asyncio.sleep(AWHILE)
        assert (gaps(link), link.events()) == ([], expected)
        assert link.state is LinkState.FOLLOWING


@pytest.mark.parametrize(("after", "expected"), [(9, []), (7, ["8", "9"])])
@in_virtual_time
async def test_a_client_may_be_given_all_behind_a_position(after: int, expected: list[str]) -> None:
    async with Following(9) as following:
        link = following.come_back(after=after)
        assert link.state is LinkState.FOLLOWING  # nobody had to be asked
        assert link.events() == expected


# Pages.


@pytest.mark.parametrize(
    ("window", "subscription"),
    [(10**6, TO_NEWS), (10**6, Subscription.of((), ["ne*"])), (1, TO_NEWS), (20 * 600, TO_NEWS)],
    ids=["by topic", "by pattern", "from the broker", "from both"],
)
@in_virtual_time
async def test_a_page_is_bounded_and_pages_are_all_there_is(window: int, subscription: Subscription) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "PAGE_BYTES", 100)
        patch.setattr(replay_module, "SCAN_ENTRIES", 20)
        following = Following(30, window_bytes=window)
        following.broker.put(30, topic="other")
        following.broker.put(30)
        pages: list[tuple[bytes, int]] = []
        read = Replay.next

        def noted(replay: Replay, link: Any) -> bytes:
            page = read(replay, link)
            pages.append((page, replay.taken))
            return page

        patch.setattr(Replay, "next", noted)
        async with following:
            link = following.come_back("0000000a-2", subscription=subscription)
            await asyncio.sleep(AWHILE)
    assert len(pages) > 10
    assert all(page.count(b"data: ") == taken for page, taken in pages)
    assert max(len(page) for page, _ in pages) < 100 + len(following.broker.entries[-1].frame)
    assert link.events() == [*numbers(3, 30), *numbers(61, 90)]
    assert link.state is LinkState.FOLLOWING


@pytest.mark.parametrize("window", [1, 300, 10**6])
@in_virtual_time
async def test_a_client_joins_its_feed_at_the_exact_place_while_publishing_goes_on(window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "PAGE_BYTES", 60)
        patch.setattr(replay_module, "SCAN_ENTRIES", 7)
        async with Following(50, window_bytes=window) as following:
            links = []
            for turn in range(60):
                following.broker.put(1 + turn % 3)
                links.append(following.come_back(f"0000000a-{turn}"))
                for _ in range(turn % 4):
                    await asyncio.sleep(0)
            await asyncio.sleep(AWHILE)
            last = following.broker.entries[-1].position
    for turn, link in enumerate(links):
        assert link.events() == numbers(turn + 1, last)
        assert link.state is LinkState.FOLLOWING


# What goes wrong meanwhile.


@pytest.mark.parametrize(("dropped", "resumed"), [(5, '"0000000a-6"'), (9, "null")])
@in_virtual_time
async def test_a_client_is_told_of_a_gap_where_what_it_missed_is_kept_no_longer(dropped: int, resumed: str) -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.lose(dropped)
        link = following.come_back("0000000a-2")
        await asyncio.sleep(AWHILE)
        following.broker.put(1)
        await asyncio.sleep(AWHILE)
    assert link.events() == ["ssepool.gap", *numbers(dropped + 1, 10)]
    assert gaps(link) == [f'{{"requested":"0000000a-2","resumed":{resumed},"reason":"expired"}}']


@in_virtual_time
@pytest.mark.parametrize("wanted", ["0000000a-3", "0000000a-5"])
async def test_a_client_joins_at_once_where_nothing_is_kept_for_it(wanted: str) -> None:
    async with Following(5, history_events=0) as following:
        client = following.come_back(wanted, room=0)  # nothing has been written to it yet
        assert client.feed is not None
        following.broker.put(1)
        await asyncio.sleep(AWHILE)
        client.make_room()
        assert Decoder().feed(client.written)[-1].data == "6"
        assert len(gaps(client)) == (wanted != "0000000a-5")


@in_virtual_time
async def test_a_gap_names_no_event_of_another_topic() -> None:
    async with Following(5) as following:
        following.broker.put(3, topic="secret")
        await asyncio.sleep(AWHILE)
        alone = following.come_back("ffffffff-1", subscription=Subscription.of(["nothing"]))
        before = following.come_back("ffffffff-1", subscription=Subscription.of(["secret"]))
        await asyncio.sleep(AWHILE)
    assert gaps(alone) == ['{"requested":"ffffffff-1","resumed":null,"reason":"unknown_id"}']
    assert gaps(before) == ['{"requested":"ffffffff-1","resumed":"0000000a-6","reason":"unknown_id"}']


@in_virtual_time
async def test_a_client_is_told_of_a_gap_where_what_it_missed_cannot_be_read() -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.entries[4:6] = [unreadable(5), unreadable(6)]
        link = following.come_back("0000000a-2")
        await asyncio.sleep(AWHILE)
        assert link.state is LinkState.FOLLOWING
    assert link.events() == ["3", "4", "ssepool.gap", *numbers(7, 9)]
    assert gaps(link) == ['{"requested":null,"resumed":"0000000a-7","reason":"expired"}']


async def test_a_client_that_asks_for_the_earliest_is_told_of_no_gap_when_that_has_gone_meanwhile() -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.lose(4)
        link = following.come_back("earliest")
        await asyncio.sleep(AWHILE)
    assert link.events() == numbers(5, 9)


@pytest.mark.parametrize("crowd", [0, 2000], ids=["some", "more than are remembered"])
@in_virtual_time
async def test_a_client_is_told_of_what_goes_while_it_reads_though_something_newer_went_before(crowd: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "PAGE_BYTES", 1)
        rules = ("price events=1", "noise events=1", "news events=9")
        async with Following(9, topic_rules=rules, history_events=4000) as following:
            following.broker.put(2, topic="price")  # of which the first, 10, goes
            await asyncio.sleep(AWHILE)
            link = following.come_back("earliest", room=1)  # it takes the first page, and stalls
            following.broker.put(5)
            following.broker.put(crowd, topic="noise")
            await asyncio.sleep(AWHILE)
            link.make_room()
            await asyncio.sleep(AWHILE)
        assert link.events() == ["1", "ssepool.gap", *numbers(6, 9), *numbers(12, 16)]


@in_virtual_time
async def test_a_client_is_told_of_no_gap_where_what_it_gets_was_fetched_before_it_went() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "PAGE_BYTES", 1)
        async with Following(9, topic_rules=("news events=9",), window_bytes=1) as following:
            link = following.come_back("0000000a-2", room=1)
            await asyncio.sleep(AWHILE)
            following.broker.put(4)
            await asyncio.sleep(AWHILE)
            link.make_room()
            await asyncio.sleep(AWHILE)
        assert link.events() == numbers(3, 13)


@in_virtual_time
async def test_a_client_whose_history_is_lost_in_the_middle_gets_the_new_one_behind_a_gap() -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.answers.clear()
        reads = following.broker.reads
        link = following.come_back("0000000a-2")
        await asyncio.sleep(0.1)
        assert following.broker.reads == reads + 1
        following.broker.forget("0000000b")
        following.broker.put(3)
        await asyncio.sleep(3 * CHECK_SECONDS)
        following.broker.answers.set()
        await asyncio.sleep(AWHILE)
        following.broker.put(1)
        await asyncio.sleep(AWHILE)
    assert link.events() == ["ssepool.gap", *numbers(1, 4)]
    assert '"reason":"broker_lost"' in gaps(link)[0]


@in_virtual_time
async def test_a_page_that_the_broker_does_not_give_is_asked_for_again() -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.broken = "away"
        link = following.come_back("0000000a-2")
        await asyncio.sleep(RETRY_SECONDS / 2)
        following.broker.broken = None
        assert link.written == b""
        await asyncio.sleep(AWHILE)
    assert link.events() == numbers(3, 9)


@in_virtual_time
async def test_an_id_that_the_broker_does_not_look_up_is_asked_for_again() -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.entries[4] = replace(following.broker.entries[4], id="chosen")
        following.broker.broken = "away"
        link = following.come_back("chosen")
        await asyncio.sleep(RETRY_SECONDS / 2)
        following.broker.broken = None
        await asyncio.sleep(AWHILE)
    assert link.events() == numbers(6, 9)


@pytest.mark.parametrize("wanted", ["0000000a-2", "chosen"])
@pytest.mark.parametrize("ended", [False, True])
@in_virtual_time
async def test_a_client_that_leaves_while_the_broker_is_asked_is_written_nothing_more(wanted: str, ended: bool) -> None:
    async with Following(9, window_bytes=1) as following:
        following.broker.answers.clear()
        link = following.come_back(wanted)
        await asyncio.sleep(0.1)
        link.room_left = 5
        link.close(Reason.KICKED)
        if ended:
            link.end(Reason.CLIENT_CLOSED)
        following.broker.lose(9)
        following.broker.answers.set()
        await asyncio.sleep(AWHILE)
        assert link.outbox is None
        assert link.feed is None
        link.make_room()
    assert link.events() == ([] if ended else ["ssepool.close"])
    assert len(following.streams.feeds) == 0


class Client:
    """A link and the feeds that it may join."""

    def __init__(self, heard: Heard, wanted: str) -> None:
        self.pushed: list[bytes] = []
        self.joined = False
        self.replay: Replay | None = Replay(
            heard.log,
            self,
            self.tasks,
            Subscription.of(["news"]),
            wanted=wanted,  # type: ignore[arg-type]
        )

    tasks = Tasks()
    context = SimpleNamespace(now=lambda: 0.0)
    dialect = DIALECT
    chunked = False

    def push(self, frame: bytes) -> None:
        self.pushed.append(frame)

    def flush(self) -> None:
        if self.replay is not None:
            self.push(self.replay.next(self))  # type: ignore[arg-type]

    def join(self, link: Any, subscription: Subscription) -> None:
        self.joined = True


async def test_a_client_whose_history_is_lost_while_its_place_is_looked_for_is_told(heard: Heard) -> None:
    heard.broker.put(5)
    heard.broker.entries[3] = replace(heard.broker.entries[3], id="chosen")
    heard.broker.answers.clear()
    client = Client(heard, "chosen")
    assert client.replay is not None
    client.replay.begin(client)  # type: ignore[arg-type]
    await heard.until(lambda: heard.broker.asked == ["chosen"])
    heard.broker.forget("0000000b")
    heard.broker.put(2)
    await heard.until(lambda: heard.log.window.epoch == "0000000b" and heard.log.position == 2)
    heard.broker.answers.set()
    await heard.until(lambda: client.pushed)
    client.flush()
    client.flush()
    assert client.joined
    assert b"broker_lost" in client.pushed[0]
    assert b"data: 1\n" in b"".join(client.pushed)
    assert b"data: 2\n" in b"".join(client.pushed)


@pytest.mark.parametrize("left", [3, 0])
async def test_a_client_with_an_unknown_id_is_told_of_one_gap_though_more_has_gone_since(left: int) -> None:
    heard = Heard(window_bytes=1)
    heard.broker.put(9)
    await heard.log.open()
    stale = heard.log.bounds
    heard.broker.lose(9 - left)
    client = Client(heard, "unknown")
    assert client.replay is not None
    client.replay.begin(client)  # type: ignore[arg-type]
    heard.log.bounds = stale
    await heard.until(lambda: client.flush() or client.joined)
    sent = b"".join(client.pushed)
    assert sent.count(b"ssepool.gap") == sent.count(b"unknown_id") == 1
    assert sent.count(b"data: 7\n") == sent.count(b"data: 9\n") == (1 if left else 0)
    await heard.log.close()


async def test_what_is_fetched_ends_where_the_feeds_go_on() -> None:
    heard = Heard(window_bytes=1)
    heard.broker.put(5)
    await heard.log.open()
    heard.broker.asleep = True
    heard.broker.put(4)  # which the feeds have not had yet
    client = Client(heard, "0000000a-2")
    assert client.replay is not None
    client.replay.begin(client)  # type: ignore[arg-type]
    await heard.until(lambda: client.flush() or client.joined)
    sent = b"".join(client.pushed)
    assert [number for number in range(1, 10) if b"data: %d\n" % number in sent] == [3, 4, 5]
    assert heard.log.position == 5
    await heard.log.close()
