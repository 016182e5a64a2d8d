"""Forty subscribers of quiet and noisy topics that drop and come back at random, while the broker's server is killed
and nodes begin anew: each gets what its topics still had, once and in order, and is told of a gap exactly where a plain
model of the rules says so.

`SUBSCRIBERS_SECONDS=60` is for how long, for each kind; `SUBSCRIBERS_SEED` brings the same choices again.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from histories import DROPPING
from judging import Judge, Session
from keeping import Bounds
from parts import Paper, Streams
from service_fixtures import make_service
from services import Service
from services.kinds import SERVICES
from ssepool.brokers import connect
from ssepool.brokers.base import Stored
from ssepool.brokers.record import records
from ssepool.config import HubConfig, MiB
from ssepool.core.beginning import Beginning
from ssepool.core.decoder import Decoder
from ssepool.core.event import EARLIEST, Entry, Event
from ssepool.core.rules import Rule
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams import replay as replay_module
from ssepool.runtime.streams import sweeper as sweeper_module
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.replay import Replay
from ssepool.runtime.tasks import Tasks

SECONDS = float(os.environ.get("SUBSCRIBERS_SECONDS", "5"))
SEED = os.environ.get("SUBSCRIBERS_SEED") or str(random.randrange(10**6))
DEADLINE = 30.0
SUBSCRIBERS = 40

RULES = ("own events=100000", "price/* events=1", "live/* events=0", "noise/2 events=20")
EVENTS = 60
SETTINGS: dict[str, Any] = {"history_events": EVENTS, "topic_rules": RULES, "broker_timeout": 2.0}

NOISY = [
    ("noise/1",),
    ("noise/1",),
    ("noise/2",),
    ("noise/3",),
    ("price/1",),
    ("price/2",),
    ("live/1",),
    ("state",),
    ("state",),
    ("state", "noise/2"),
]
QUIET = [("quiet/1",), ("quiet/2", "noise/1"), ("quiet/3", "price/1"), ("quiet/1", "live/1"), ("quiet/2", "quiet/3")]
TOPICS = sorted({topic for topics in [*NOISY, *QUIET] for topic in topics} | {"own", "nobody's"})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "SPARE_SECONDS", 0.1)
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(follower_module, "RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(replay_module, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(replay_module, "PAGE_BYTES", 400)
    monkeypatch.setattr(replay_module, "FETCH_BYTES", 4000)


class Client(Paper):
    """Notes when it was told of gaps, and how far it had been given everything when it began to be live."""

    def __init__(self, node: Node, session: Session) -> None:
        self.node, self.session = node, session
        super().__init__(node.streams.links)

    def push(self, frame: bytes) -> None:
        self.session.told.append(self.node.world.newest)
        super().push(frame)

    def become(self, state: LinkState) -> None:
        super().become(state)
        if state is LinkState.FOLLOWING and not self.session.joined:
            self.session.joined = self.node.log.position
            self.session.newest = self.node.world.newest

    def how(self) -> str:
        """How it does, for a message."""
        log, replay = self.node.log, self.replay
        at = None if not isinstance(replay, Replay) else (replay.wanted, replay.position, replay.waiting)
        return f"{self.session}, {self.state}, {at}, {log.position}, {log.bounds}, {log.window}, {log.failing}"


class World:
    """All that was ever published, as nodes saw it, and what was promised to publishers."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.stored: dict[str, int] = {}
        """By data: the positions that publishers were told."""
        self.sessions: list[Session] = []
        self.nodes: list[Node] = []
        self.over = False

    @property
    def newest(self) -> int:
        return max(self.entries, default=0)

    def saw(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            known = self.entries.setdefault(entry.position, entry)
            assert (known.id, known.frame) == (entry.id, entry.frame)

    def promised(self, events: Sequence[Event], stored: Sequence[Stored]) -> None:
        for event, place in zip(events, stored, strict=True):
            self.stored[event.data] = place.position

    def place_of(self, id: str) -> int:
        if id.startswith("own-"):
            return next(entry.position for entry in self.entries.values() if entry.id == id)
        return int(id.partition("-")[2])


class Node:
    """A log with its feeds, and the clients that it has."""

    def __init__(self, world: World, name: str, url: str, window_bytes: int) -> None:
        self.world, self.name = world, name
        self._settings = {**SETTINGS, "broker": url, "window_bytes": window_bytes}
        self.is_open = False
        self.clients: set[Client] = set()
        self.log: EventLog

    async def open(self) -> None:
        now = asyncio.get_running_loop().time
        self.streams, self.tasks = Streams(now=now, **self._settings), Tasks()
        feeds, broker = self.streams.feeds, connect(HubConfig(**self._settings))
        self.log = EventLog(broker, self._deliver, feeds.announce_loss, self.streams.delivery.room, now)
        async with asyncio.timeout(DEADLINE):
            while not self.is_open:
                try:
                    await self.log.open()
                    self.is_open = True
                except BrokerError:
                    await asyncio.sleep(0.1)
        self.world.saw(await self.log.broker.read(0, max_entries=1000))

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.world.saw(entries)
        self.streams.feeds.dispatch(entries)

    async def close(self) -> None:
        self.is_open = False
        for client in list(self.clients):
            self.leave(client)
        await self.tasks.close(DEADLINE)
        await self.log.close()

    def come(self, who: str, subscription: Subscription, wanted: str | None) -> Client:
        """A client that wants what is behind an id; None for what is live from now on."""
        log = self.log
        id = wanted or Beginning(log.window.epoch, log.position).id
        place = 0 if id == EARLIEST else self.world.place_of(id)
        session = Session(f"{who} at {self.name}", subscription, place, id == EARLIEST, log.position)
        client = Client(self, session)
        client.wanted = id
        client.room_left = 10**9 if len(who) % 2 else 300
        self.streams.give_slot(client)
        self.clients.add(client)
        client.replay = replay = Replay(log, self.streams.feeds, self.tasks, subscription, wanted=id)
        replay.begin(client)
        client.flush()
        return client

    def leave(self, client: Client) -> str:
        """Cut it off, and note what it heard. The id with which it comes back."""
        if client not in self.clients:
            return client.wanted
        self.clients.discard(client)
        slot, feed, session, world = client.slot, client.feed, client.session, self.world
        client.end(Reason.CLIENT_CLOSED)
        assert slot is not None
        self.streams.pool.release(slot, self.streams.now(), Reason.CLIENT_CLOSED)
        if feed is not None:
            self.streams.feeds.drop(feed)
        for message in Decoder().feed(client.written):
            if message.type == "ssepool.gap":
                session.heard.append(str(msgspec.json.decode(message.data)["reason"]))
            else:
                session.heard.append(world.place_of(message.id))
                client.wanted = message.id
        session.ended = world.newest
        world.sessions.append(session)
        return client.wanted


def _subscription(rng: random.Random) -> Subscription:
    private = rng.random() < 0.5
    if rng.random() < 0.1:
        return Subscription.of(["quiet/1"], [rng.choice(["noise/*", "quiet/*", "*"])], private)
    return Subscription.of(rng.sample(TOPICS, rng.choice([1, 1, 2, 3])), private=private)


async def subscribe(world: World, number: int) -> None:
    """Come and go until all is over; then stay until all has come."""
    rng = random.Random(f"{SEED} subscriber {number}")
    who, subscription = f"subscriber {number}", _subscription(rng)
    wanted = rng.choice([None, EARLIEST])
    while not world.over:
        if (node := _some(world, rng)) is None:
            await asyncio.sleep(0.05)
            continue
        client = node.come(who, subscription, wanted)
        until = asyncio.get_running_loop().time() + rng.choice([0.0, 0.05, 0.3, 1.0, 2.0]) * rng.random()
        while asyncio.get_running_loop().time() < until and client in node.clients:
            await asyncio.sleep(0.02)
            if client.stalled:
                client.make_room(rng.randrange(100, 1000))
        wanted = node.leave(client)
        await asyncio.sleep(rng.choice([0.0, 0.1, 0.3, 1.5]) * rng.random())
    node = rng.choice(world.nodes)
    client = node.come(f"{who} at last", subscription, wanted)
    newest = max(world.newest, *world.stored.values())
    late = asyncio.get_running_loop().time() + DEADLINE
    while client.state is not LinkState.FOLLOWING or client.session.joined < newest:
        if client.state is LinkState.FOLLOWING:
            client.session.joined, client.session.newest = node.log.position, world.newest
        await asyncio.sleep(0.01)
        if client.stalled:
            client.make_room()
        assert asyncio.get_running_loop().time() < late, f"{newest} did not come: {client.how()}"
    await asyncio.sleep(0.05)
    node.leave(client)


def _some(world: World, rng: random.Random) -> Node | None:
    return rng.choice([node for node in world.nodes if node.is_open] or [None])  # type: ignore[list-item]


async def publish(world: World, number: int) -> None:
    """Publish until all is over. What failed may have been stored or not; what has an id of its own is tried again."""
    rng, said = random.Random(f"{SEED} publisher {number}"), 0
    while not world.over:
        await asyncio.sleep(0.03 * rng.random())
        topics = rng.choice(QUIET) if rng.random() < 0.03 else rng.choice(NOISY)
        count, private = rng.choice([1, 1, 1, 2, 5]), rng.random() < 0.2
        events = [Event(f"{number}.{said + each}", topics, private=private) for each in range(count)]
        said += count
        if rng.random() < 0.05:
            await _insist(world, rng, Event(events[0].data, ("own",), id=f"own-{events[0].data}", private=private))
        elif (node := _some(world, rng)) is not None:
            try:
                world.promised(events, await _store(node, events, rng))
            except BrokerError:
                await asyncio.sleep(0.05)


async def _store(node: Node, events: list[Event], rng: random.Random) -> Sequence[Stored]:
    if events[0].topics[0] != "state":
        return await node.log.store(events)
    keyed = [
        msgspec.structs.replace(record, key=rng.choice("abc"), removed=rng.random() < 0.1)
        for record in records(events, MiB)
    ]
    return await node.log.broker.append(keyed)


async def _insist(world: World, rng: random.Random, event: Event) -> None:
    async with asyncio.timeout(DEADLINE):
        while event.data not in world.stored:
            if (node := _some(world, rng)) is not None:
                try:
                    world.promised([event], await node.log.store([event]))
                except BrokerError:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0)


async def trouble(world: World, service: Service | None) -> None:
    """The server is killed and started, a node begins anew beside another one, and all do."""
    rng = random.Random(f"{SEED} trouble")
    end = asyncio.get_running_loop().time() + SECONDS
    troubles = [_kill, _reopen_one, _reopen_all]
    while (left := end - asyncio.get_running_loop().time()) > 0.2:
        await asyncio.sleep(min(left, SECONDS / 6 + rng.random() * 0.5 if SECONDS < 20 else 2 + 3 * rng.random()))
        if len(world.nodes) > 1:
            harm = troubles[0]
            troubles.append(troubles.pop(0))
            await harm(world, service, rng)


async def _kill(world: World, service: Service | None, rng: random.Random) -> None:
    if service is not None:
        await asyncio.to_thread(service.kill)
        await asyncio.sleep(0.3 * rng.random())
        await asyncio.to_thread(service.start)


async def _reopen_one(world: World, service: Service | None, rng: random.Random) -> None:
    node = rng.choice(world.nodes)
    await node.close()
    await asyncio.sleep(0.3 * rng.random())
    await node.open()


async def _reopen_all(world: World, service: Service | None, rng: random.Random) -> None:
    for node in world.nodes:
        await node.close()
    for node in world.nodes:
        await node.open()


def judge(world: World) -> Judge:
    """Hold everything against the model."""
    entries = [world.entries[position] for position in sorted(world.entries)]
    by_data = {message.data: entry for entry in entries for message in Decoder().feed(entry.frame)}
    assert {data: by_data[data].position for data in world.stored} == world.stored  # each once, and where it was said
    judge = Judge(entries, Bounds(EVENTS, math.inf, Rule(), RULES))
    for session in world.sessions:
        judge.check(session)
    return judge


@pytest.fixture
def harmed(kind: str, tmp_path: Any) -> Iterator[Service | None]:
    """The server of the kind, for this test alone; None if it has none."""
    if kind not in SERVICES:
        yield None
        return
    service = make_service(kind, tmp_path / kind)
    service.start()
    yield service
    service.kill()


@pytest.mark.timeout(SECONDS + 4 * DEADLINE)
@pytest.mark.parametrize("kind", dict.fromkeys(["memory", *DROPPING]))
async def test_each_gets_what_its_topics_still_had_and_gaps_exactly_where_they_are(
    kind: str, harmed: Service | None, tmp_path: Any
) -> None:
    print("SUBSCRIBERS_SEED", SEED)
    world = World()
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/events.db"
    url = url if harmed is None else harmed.url("test")
    sizes = {"one": 10**6, "two": 8000} if kind != "memory" else {"one": 10**6}
    world.nodes = [Node(world, name, url, size) for name, size in sizes.items()]
    for node in world.nodes:
        await node.open()
    async with asyncio.TaskGroup() as group:
        publishers = [group.create_task(publish(world, number)) for number in range(3)]
        for number in range(SUBSCRIBERS):
            group.create_task(subscribe(world, number))
        await trouble(world, harmed)
        world.over = True
        await asyncio.wait(publishers)
    for node in world.nodes:
        await node.close()
    judged = judge(world)
    print(f"{len(world.entries)} events, {len(world.sessions)} stays, {judged.told} gaps")
    assert len(world.sessions) > 2 * SUBSCRIBERS
    assert judged.told > 10
