"""The plain path: links over a `receive` and a `send` that do as the test says."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parts import TO_NEWS, Streams, delivered, running, until
from ssepool.config import HubConfig, PoolConfig
from ssepool.core.event import Event
from ssepool.core.grant import STRANGER
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.asgi import AsgiLink

BODY = "http.response.body"


class Server:
    """What a server offers for one request, and the link over it."""

    def __init__(self, streams: Streams, *, abortable: bool = True) -> None:
        self.streams = streams
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.inside = 0
        """Calls of `send` that have not returned."""
        self.error: BaseException | None = None
        """Raised by `send`."""
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.aborts = 0
        self.reasons: list[Reason] = []
        self.link = AsgiLink(streams.links, self.incoming.get, self.send, self.abort if abortable else None)
        self.link.owner = self
        self.slot = streams.give_slot(self.link)
        self.writer: asyncio.Task[None] | None = None

    async def send(self, message: Any) -> None:
        self.inside += 1
        try:
            await self.takes.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.inside -= 1
        self.sent.append(message)

    def abort(self) -> None:
        self.aborts += 1

    def link_ended(self, reason: Reason) -> None:
        self.reasons.append(reason)

    async def begin(self) -> None:
        """The head is out; write what comes."""
        await self.link.wait_started()
        self.streams.feeds.join(self.link, TO_NEWS)
        self.writer = asyncio.create_task(self.link.run())
        await asyncio.sleep(0)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server(Streams())
    yield server
    server.takes.set()
    server.link.end(Reason.SHUTDOWN)
    await asyncio.gather(server.link._receiver, return_exceptions=True)
    if server.writer is not None:
        await asyncio.gather(server.writer, return_exceptions=True)


def test_each_flush_wakes_a_task() -> None:
    assert AsgiLink.weight == 1


# Writing.


async def test_what_waits_to_be_written_is_joined_in_one_message(server: Server) -> None:
    server.link.push(b"data: own 1\n\n")
    server.link.push(b"data: own 2\n\n")
    await server.begin()
    await until(lambda: server.link.state is LinkState.FOLLOWING)
    server.streams.publish("1", "2", "3")
    await until(lambda: len(server.sent) == 2)
    assert server.sent == [
        {"type": BODY, "body": b"data: own 1\n\ndata: own 2\n\n", "more_body": True},
        {"type": BODY, "body": b"data: 1\n\ndata: 2\n\ndata: 3\n\n", "more_body": True},
    ]
    assert server.slot.bytes == sum(map(len, server.bodies))


async def test_nothing_is_sent_while_the_server_takes_no_more_and_then_all_of_it(server: Server) -> None:
    await server.begin()
    server.takes.clear()
    for number in range(3):
        server.streams.publish(str(number))
        await delivered(server.streams)
        await until(lambda: server.inside)
    assert server.link.stalled
    assert server.bodies == []
    server.takes.set()
    await until(lambda: server.link.state is LinkState.FOLLOWING)
    assert server.bodies == [b"data: 0\n\n", b"data: 1\n\ndata: 2\n\n"]
    assert not server.link.stalled


async def test_who_has_not_had_its_turn_to_write_is_behind(server: Server) -> None:
    await server.begin()
    feed = server.link.feed
    assert feed is not None
    server.streams.publish("1")
    server.streams.delivery._slice()
    assert list(feed.behind) == [server.link]  # so that the feed keeps what the task will look for
    await until(lambda: server.bodies)
    await until(lambda: not feed.behind)
    assert feed.entries == []


class Pages:
    """A backlog of three pages."""

    waiting = False
    taken = 1

    def __init__(self) -> None:
        self.left = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]

    def next(self, link: Any) -> bytes:
        if not self.left:
            link.replay = None
            return b""
        return self.left.pop(0)


async def test_a_replay_writes_a_page_at_a_time_when_its_turn_comes(server: Server) -> None:
    server.link.replay = Pages()
    turns: list[Any] = []
    server.streams.delivery.again = turns.append  # type: ignore[method-assign]
    await server.begin()
    for page in (1, 2, 3):
        await until(lambda page=page: len(turns) == page)  # type: ignore[misc]
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(server.bodies) == page
        server.link.flush()
    await until(lambda: server.link.state is LinkState.FOLLOWING)
    assert server.bodies == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]
    assert (turns, server.slot.events) == ([server.link] * 3, 3)


# How it ends.


async def test_a_stream_that_is_over_completes_the_response(server: Server) -> None:
    await server.begin()
    server.link.finish(Reason.COMPLETED)
    assert server.writer is not None
    await server.writer
    assert server.sent[-1] == {"type": BODY, "body": b"", "more_body": False}
    assert b"ssepool.close" in server.bodies[-2]
    assert (server.reasons, server.aborts) == ([Reason.COMPLETED], 0)


async def test_a_stream_that_is_cut_has_been_written_where_a_server_keeps_some_messages_and_then_drops_them(
    server: Server,
) -> None:
    kept: asyncio.Queue[bytes] = asyncio.Queue(4)
    written: list[bytes] = []

    async def keep(message: Any) -> None:
        await kept.put(message["body"])

    async def write() -> None:
        while True:
            written.append(await kept.get())

    server.link._send = keep
    await server.begin()
    for number in range(3):
        server.streams.publish(str(number))
        await until(lambda number=number: kept.qsize() == number + 1)  # type: ignore[misc]
    server.link.close(Reason.SHUTDOWN)
    await until(lambda: kept.full())
    writing = asyncio.create_task(write())
    assert server.writer is not None
    await server.writer
    writing.cancel()
    assert b"ssepool.close" in b"".join(written)
    assert server.link.is_partial


@pytest.mark.parametrize(("abortable", "aborts"), [(True, 1), (False, 0)])
async def test_a_client_is_cut_off_in_the_middle_of_a_send(abortable: bool, aborts: int) -> None:
    server = Server(Streams(), abortable=abortable)
    await server.begin()
    server.takes.clear()
    server.streams.publish("1")
    await until(lambda: server.inside)
    server.link.end(Reason.SEND_TIMEOUT)
    assert server.writer is not None
    await server.writer  # which is not cancelled: it was the hub that ended it
    assert (server.reasons, server.aborts, server.inside, server.bodies) == ([Reason.SEND_TIMEOUT], aborts, 0, [])
    assert server.slot.bytes == 0
    await asyncio.gather(server.link._receiver, return_exceptions=True)
    assert server.link._receiver.cancelled()


async def test_a_task_that_waits_for_news_ends_when_the_client_has_gone(server: Server) -> None:
    await server.begin()
    server.link.end(Reason.KICKED)
    assert server.writer is not None
    await server.writer
    assert (server.bodies, server.aborts) == ([], 1)


async def test_a_cancellation_that_is_the_servers_is_passed_on(server: Server) -> None:
    await server.begin()
    server.takes.clear()
    server.streams.publish("1")
    await until(lambda: server.inside)
    assert server.writer is not None
    server.writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.writer
    assert server.reasons == []  # the request tells it


async def test_a_cancellation_by_the_server_is_passed_on_also_if_the_hub_ended_it_in_the_same_moment(
    server: Server,
) -> None:
    await server.begin()
    server.takes.clear()
    server.streams.publish("1")
    await until(lambda: server.inside)
    assert server.writer is not None
    server.link.end(Reason.SEND_TIMEOUT)
    server.writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.writer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(), Reason.CLIENT_CLOSED),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Reason.CLIENT_CLOSED),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), Reason.PEER_DEAD),
    ],
    ids=repr,
)
async def test_a_send_that_fails_says_why_the_client_has_gone(server: Server, error: OSError, reason: Reason) -> None:
    await server.begin()
    server.error = error
    server.streams.publish("1")
    assert server.writer is not None
    await server.writer
    assert (server.reasons, server.slot.bytes) == ([reason], 0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "http.disconnect"}, Reason.CLIENT_CLOSED),
        ({"type": "http.disconnect", "ssepool.errno": errno.ECONNRESET}, Reason.CLIENT_CLOSED),
        ({"type": "http.disconnect", "ssepool.errno": errno.ETIMEDOUT}, Reason.PEER_DEAD),
    ],
)
async def test_a_client_that_leaves_ends_the_link(server: Server, message: dict[str, Any], reason: Reason) -> None:
    await server.begin()
    server.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.reasons == []  # the request's body is no departure
    server.incoming.put_nowait(message)
    assert server.writer is not None
    await server.writer
    assert server.reasons == [reason]


async def test_a_connection_is_dropped_only_where_the_response_has_begun(server: Server) -> None:
    server.link.end(Reason.CLIENT_CLOSED)
    assert server.link.state is LinkState.ENDED
    assert server.aborts == 0  # the server may answer the request in another way


# What belongs to whom when a client is cut off in the middle of a `send` and another one has its slot.


class Client:
    """A client that takes what it is sent as long as it wants to."""

    def __init__(self, engine: Engine, data: str) -> None:
        self.engine, self.data = engine, data
        self.takes = asyncio.Event()
        self.takes.set()
        self.received = b""
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "query_string": b""}
        self.response = EventStream(engine, Visit.of(self.scope, Subscription.of(["news"]), STRANGER, data=data))
        self.task = asyncio.create_task(self.response(self.scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.received += message.get("body", b"")

    @property
    def connection(self) -> Any:
        return next((found for found in self.engine.connections if found.data == self.data), None)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running(HubConfig(pool=PoolConfig(size=1), detach=False)) as engine:
        yield engine


async def publish(engine: Engine, data: str) -> None:
    await engine.publish_many([Event.of("news", data)])


@pytest.mark.parametrize("fails", [False, True], ids=["cut off", "failing"])
async def test_a_write_that_ends_late_is_not_counted_for_the_next_client(engine: Engine, fails: bool) -> None:
    first = Client(engine, "first")
    await until(lambda: b"ssepool.open" in first.received)
    second = Client(engine, "second")
    await until(lambda: engine.pool.waiting)
    slot = engine.pool.slots[0]

    first.takes.clear()
    await publish(engine, "never taken")
    await until(lambda: slot.holder.stalled)
    if fails:

        async def broken(message: Any) -> None:
            raise ConnectionResetError

        slot.holder._send = broken  # for what comes after this write
        first.takes.set()
        await publish(engine, "into the void")
    else:
        slot.holder.end(Reason.SEND_TIMEOUT)
    await until(lambda: b"ssepool.open" in second.received)
    await asyncio.wait_for(first.task, 10)
    assert second.connection.bytes_sent == len(second.received)
    await publish(engine, "taken")
    await until(lambda: b"data: taken\n\n" in second.received)
    assert second.connection.bytes_sent == len(second.received)
    assert b"never taken" not in second.received
    assert engine.stats().bytes_sent == len(first.received) + len(second.received)


async def test_a_cancelled_request_frees_its_slot(engine: Engine) -> None:
    client = Client(engine, "cancelled by its server")
    await until(lambda: b"ssepool.open" in client.received)
    waiting = Client(engine, "waits")
    await until(lambda: engine.pool.waiting)
    waiting.task.cancel()
    client.task.cancel()
    for task in (waiting.task, client.task):
        with pytest.raises(asyncio.CancelledError):
            await task
    stats = engine.pool.stats()
    assert (stats.free, stats.waiting, stats.cancelled, stats.released["error"]) == (1, 0, 1, 1)
