"""Sockets that were taken over: links over one end of a pair, whose other end is the client."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parts import TO_NEWS, Streams, delivered, until
from ssepool.bench.framing import unchunk
from ssepool.core.chunk import chunk
from ssepool.core.decoder import Decoder
from ssepool.core.states import LinkState, Reason
from ssepool.runtime.handover import AVAILABLE, FAILED
from ssepool.runtime.streams import socket as socket_module
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.socket import BATCH_SOCKETS, SocketLink, Streamer

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="there is no epoll")

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Handover:
    """What a server hands over."""

    def __init__(self, near: socket.socket) -> None:
        near.setblocking(False)
        self.fd = near.detach()
        self.sink: Any = None
        self.told = 0
        self.owns_body = False

    def gone(self) -> None:
        self.told += 1


class Setup:
    """A streamer, and the clients whose sockets it watches."""

    def __init__(self) -> None:
        self.time = 0.0
        self.streams = Streams()
        self.streamer = Streamer(lambda: self.time)
        self.clients: list[Client] = []

    def client(self, *, tcp: bool = False, buffer: int = 0, keeps_request: bool = False) -> Client:
        pair = tcp_pair() if tcp else socket.socketpair()
        client = Client(self, *pair, buffer=buffer, keeps_request=keeps_request)
        self.clients.append(client)
        return client

    def following(self, *, chunked: bool = False, **options: Any) -> Client:
        """A client that has had its head, and is up to date."""
        client = self.client(**options)
        client.link.start(HEAD, chunked=chunked)
        client.link.flush()
        self.streams.give_slot(client.link)
        self.streams.feeds.join(client.link, TO_NEWS)
        client.link.flush()
        assert client.link.state is LinkState.FOLLOWING
        return client


class Client:
    """The far end of a link's socket."""

    def __init__(
        self, setup: Setup, near: socket.socket, far: socket.socket, *, buffer: int, keeps_request: bool
    ) -> None:
        self.far = far
        self.far.setblocking(False)
        if buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.handover = Handover(near)
        self.link = SocketLink(setup.streams.links, setup.streamer, self.handover, keeps_request=keeps_request)
        self.link.owner = self
        self.link.own_body()
        self.reasons: list[Reason] = []
        self.received = b""

    def link_ended(self, reason: Reason) -> None:
        self.reasons.append(reason)

    def read(self) -> bytes:
        """All that has come so far."""
        with contextlib.suppress(BlockingIOError):
            self.received += self.far.recv(2**20)
        return self.received

    async def read_until(self, condition: Callable[[], object]) -> None:
        await until(lambda: self.read() and condition())

    def is_over(self) -> bool:
        """Whether the stream has ended, with FIN."""
        try:
            while data := self.far.recv(2**20):
                self.received += data
        except BlockingIOError:
            return False
        return True

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    # As servers set it: else a write waits for the acknowledgement of the one before, which a busy kernel puts off.
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@pytest.fixture
async def setup() -> Any:
    setup = Setup()
    yield setup
    setup.streamer.close()
    for client in setup.clients:
        client.far.close()


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, bool]]:
    """Whether EPOLLOUT is asked for, by descriptor."""
    found: dict[int, bool] = {}
    await_room, have_room = Streamer.await_room, Streamer.have_room
    monkeypatch.setattr(
        Streamer, "await_room", lambda self, link: (found.update({link.fd: True}), await_room(self, link))
    )
    monkeypatch.setattr(
        Streamer, "have_room", lambda self, link: (found.update({link.fd: False}), have_room(self, link))
    )
    yield found


# The head.


async def test_a_link_begins_with_the_head_that_it_is_given(setup: Setup) -> None:
    client = setup.client()
    assert (client.link.state, client.handover.sink) == (LinkState.NEW, client.link)
    client.link.start(HEAD)
    client.link.flush()
    assert (client.link.state, client.read()) == (LinkState.OPEN, HEAD)
    assert client.handover.sink is None  # what the application still sends is dropped


async def test_a_link_waits_for_the_head_that_the_application_sends(setup: Setup) -> None:
    client = setup.client()
    waiting = asyncio.create_task(client.link.wait_started())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.handover.sink.head(HEAD)
    client.handover.sink.body(b": from the application\n")
    await waiting
    client.link.flush()
    assert client.read() == HEAD + b": from the application\n"
    assert client.handover.sink is None


async def test_each_way_that_bytes_take_to_a_chunked_client_makes_chunks_of_them(setup: Setup) -> None:
    client = setup.client()
    client.handover.sink.head(HEAD, chunked=True)
    client.handover.sink.body(b": from middleware\n")
    client.handover.sink.body(b"")
    await client.link.wait_started()
    setup.streams.give_slot(client.link)
    client.link.flush()
    setup.streams.feeds.join(client.link, TO_NEWS)
    client.link.beat()
    client.link.send(b"data: own\n\n")
    setup.streams.publish("one", "two")
    await delivered(setup.streams)
    body = unchunk(client.read().removeprefix(HEAD))
    assert body.content == b": from middleware\n: heartbeat\ndata: own\n\ndata: one\n\ndata: two\n\n"
    assert (body.left, body.tail, body.ended) == (0, b"", False)


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("reason", list(Reason))
async def test_the_last_chunk_comes_with_the_goodbye_where_the_stream_is_over(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, reason: Reason, chunked: bool
) -> None:
    client = setup.client()
    client.link.start(HEAD, chunked=chunked)
    client.link.flush()
    setup.streams.give_slot(client.link)
    client.read()
    writes: list[bytes] = []
    write = os.write
    monkeypatch.setattr(socket_module.os, "write", lambda fd, data: (writes.append(bytes(data)), write(fd, data))[1])
    client.link.close(reason)
    assert client.is_over()
    [goodbye] = writes
    assert b'{"reason":"%s"}' % reason.encode() in goodbye
    is_whole = reason in (Reason.COMPLETED, Reason.KICKED, Reason.REVOKED)
    assert goodbye.endswith(b"\r\n0\r\n\r\n" if chunked and is_whole else b"\n\n\r\n" if chunked else b"}\n\n")


async def test_an_application_that_completes_a_chunked_response_ends_it_cleanly(setup: Setup) -> None:
    client = setup.client()
    sink = client.handover.sink
    sink.head(HEAD, chunked=True)
    sink.body(b"not for you")
    sink.complete()
    assert client.is_over()
    assert client.received == HEAD + b"b\r\nnot for you\r\n0\r\n\r\n"


async def test_a_burst_is_one_write_of_joined_chunks(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    client = setup.client()
    client.link.start(HEAD, chunked=True)
    setup.streams.give_slot(client.link)
    setup.streams.feeds.join(client.link, TO_NEWS)
    client.link.flush()
    writes: list[bytes] = []
    write = os.write
    monkeypatch.setattr(socket_module.os, "write", lambda fd, data: (writes.append(data), write(fd, data))[1])
    setup.streams.publish("one", "two", "three")
    await delivered(setup.streams)
    assert writes == [b"".join(chunk(b"data: %s\n\n" % data) for data in (b"one", b"two", b"three"))]


async def test_a_link_that_has_its_head_waits_for_nothing(setup: Setup) -> None:
    client = setup.client()
    client.link.head(HEAD)
    await client.link.wait_started()
    assert client.handover.sink is None


async def test_an_application_that_completes_without_a_head_has_failed(setup: Setup) -> None:
    client = setup.client()
    waiting = asyncio.create_task(client.link.wait_started())
    await asyncio.sleep(0)
    client.handover.sink.complete()
    await waiting
    assert client.reasons == [Reason.ERROR]
    assert client.is_over()
    assert client.received == FAILED


async def test_a_request_that_is_kept_is_told_when_its_client_leaves_and_no_other_is(setup: Setup) -> None:
    for keeps in (False, True):
        client = setup.client(keeps_request=keeps)
        client.link.head(HEAD)
        await client.link.wait_started()
        assert client.handover.sink is None
        client.link.end(Reason.CLIENT_CLOSED)
        assert client.handover.told == int(keeps)


async def test_an_application_that_completes_its_response_ends_the_stream_behind_it(setup: Setup) -> None:
    client = setup.client()
    sink = client.handover.sink
    sink.head(HEAD)
    sink.body(b"not for you")
    sink.complete()
    assert client.is_over()
    assert (client.received, client.reasons) == (HEAD + b"not for you", [Reason.COMPLETED])
    sink.complete()
    sink.body(b"too late")
    assert client.link.outbox is None


async def test_another_response_in_a_streams_place_is_written_and_nothing_of_the_stream(setup: Setup) -> None:
    client = setup.client()
    sink = client.handover.sink
    client.handover.owns_body = False
    sink.head(HEAD)
    assert client.reasons == [Reason.CLIENT_CLOSED]
    assert not await client.link.wait_started()
    sink.body(b"instead")
    sink.complete()
    assert client.is_over()
    assert (client.received, client.reasons) == (HEAD + b"instead", [Reason.CLIENT_CLOSED])


async def test_a_client_that_leaves_before_the_head_is_told_to_the_server(setup: Setup) -> None:
    client = setup.client()
    waiting = asyncio.create_task(client.link.wait_started())
    await asyncio.sleep(0)
    client.far.close()
    await waiting
    assert (client.reasons, client.handover.told, client.handover.sink) == ([Reason.CLIENT_CLOSED], 1, None)


async def test_a_client_that_leaves_later_is_not(setup: Setup) -> None:
    client = setup.following()
    client.far.close()
    await until(lambda: client.reasons)
    assert client.handover.told == 0


# Writing.


async def test_events_are_written_as_they_come(setup: Setup) -> None:
    client = setup.following()
    setup.streams.publish("1", "2")
    await delivered(setup.streams)
    assert client.read() == HEAD + b"data: 1\n\ndata: 2\n\n"
    slot = client.link.slot
    assert slot is not None
    assert (slot.events, slot.bytes) == (2, 18)  # it had no slot when its head went out


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("tcp", [False, True], ids=["pair", "tcp"])
async def test_what_a_full_socket_takes_in_part_comes_whole(
    setup: Setup, tcp: bool, armed: dict[int, bool], chunked: bool
) -> None:
    client = setup.following(tcp=tcp, buffer=4096, chunked=chunked)
    slot, fd = client.link.slot, client.link.fd
    assert slot is not None
    events = [f"{number} " + "x" * 3000 for number in range(150)]  # more than one join, and than the kernel takes
    for event in events[:-1]:
        setup.streams.publish(event)
    await delivered(setup.streams)
    assert client.link.stalled
    assert armed == {fd: True}
    assert slot.events < len(events)
    client.link.send(b"data: own\n\n")
    setup.streams.publish(events[-1])
    await client.read_until(
        lambda: client.received.endswith((b"x\n\n", b"x\n\n\r\n")) and client.link.state is LinkState.FOLLOWING
    )
    await client.read_until(lambda: len(client.received) == len(HEAD) + slot.bytes)
    assert armed == {fd: False}
    body = client.received.removeprefix(HEAD)
    messages = Decoder().feed(unchunk(body).content if chunked else body)
    assert [message.data for message in messages] == [*events[:-1], "own", events[-1]]
    assert slot.events == len(events)  # an own event is counted by who sends it
    assert client.link.feed is not None
    assert client.link.feed.entries == []


async def test_an_own_event_that_does_not_fit_is_written_bit_by_bit(setup: Setup, armed: dict[int, bool]) -> None:
    client = setup.following(buffer=4096)
    frame = b"data: " + bytes(range(32, 127)) * 10_000 + b"\n\n"
    client.link.send(frame)
    assert client.link.stalled
    setup.streams.publish("behind")
    await client.read_until(lambda: client.link.state is LinkState.FOLLOWING)
    await client.read_until(lambda: client.received.endswith(b"behind\n\n"))
    assert client.received == HEAD + frame + b"data: behind\n\n"
    assert list(armed.values()) == [False]


async def test_room_is_asked_for_only_while_the_socket_is_full(setup: Setup, armed: dict[int, bool]) -> None:
    client = setup.following()
    setup.streams.publish("1")
    await delivered(setup.streams)
    client.link.beat()
    assert armed == {}


async def test_a_goodbye_that_does_not_fit_is_written_when_there_is_room(setup: Setup) -> None:
    client = setup.following(buffer=4096)
    setup.streams.publish(*["x" * 3000] * 500)
    await delivered(setup.streams)
    client.link.close(Reason.KICKED)
    assert client.link.state is LinkState.ENDING
    await until(client.is_over)
    assert client.received.endswith(b'data: {"reason":"kicked"}\n\n')
    assert client.reasons == [Reason.COMPLETED]  # of the link; the slot knows why
    kinds = [message.type for message in Decoder().feed(client.received.removeprefix(HEAD))]
    assert kinds == ["message"] * (len(kinds) - 1) + ["ssepool.close"]
    assert len(kinds) < 500


async def test_a_page_at_a_time_is_written_of_a_replay(setup: Setup) -> None:
    class Pages:
        taken = 1
        waiting = False
        left = 3

        def next(self, link: Any) -> bytes:
            self.left -= 1
            if self.left < 0:
                link.replay = None
                return b""
            return b"data: page\n\n"

    client = setup.following()
    client.link.leave_feed()
    client.link.replay = Pages()
    turns: list[Any] = []
    setup.streams.delivery.again = turns.append  # type: ignore[method-assign]
    for page in (1, 2, 3):
        client.link.flush()
        assert client.read().count(b"page") == page
        assert turns == [client.link] * page


# Departures.


@pytest.mark.parametrize(
    "leave", [lambda client: client.far.close(), lambda client: client.reset()], ids=["FIN", "RST"]
)
@pytest.mark.parametrize("full", [False, True])
async def test_a_client_that_leaves_is_seen(setup: Setup, leave: Callable[[Client], None], full: bool) -> None:
    client, other = setup.following(tcp=True, buffer=4096), setup.following(tcp=True)
    if full:
        setup.streams.publish(*["x" * 3000] * 3000)
        await delivered(setup.streams)
        assert client.link.stalled
    leave(client)
    await until(lambda: client.reasons)
    assert client.reasons == [Reason.CLIENT_CLOSED]
    assert len(setup.streamer) == 1
    assert other.reasons == []


@pytest.mark.parametrize(
    "code", ["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "ECONNRESET", "EPIPE"]
)
async def test_an_error_of_the_socket_says_why_the_client_has_gone(
    setup: Setup, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = setup.following()
    monkeypatch.setattr(socket_module, "_pending_error", lambda fd: getattr(errno, code))
    client.link.ready(select.EPOLLERR | select.EPOLLHUP)
    expected = Reason.CLIENT_CLOSED if code in ("ECONNRESET", "EPIPE") else Reason.PEER_DEAD
    assert client.reasons == [expected]


async def test_the_error_is_that_of_the_socket(setup: Setup) -> None:
    client = setup.client(tcp=True)
    assert socket_module._pending_error(client.link.fd) == 0
    client.reset()
    await until(lambda: client.reasons)
    assert client.reasons == [Reason.CLIENT_CLOSED]


@pytest.mark.parametrize(("code", "reason"), [("EPIPE", Reason.CLIENT_CLOSED), ("ETIMEDOUT", Reason.PEER_DEAD)])
async def test_a_write_that_fails_says_why_the_client_has_gone(
    setup: Setup, code: str, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = setup.following(), setup.following()
    write = os.write

    def fail(fd: int, data: Any) -> int:
        if fd == client.link.fd:
            raise OSError(getattr(errno, code), "on purpose")
        return write(fd, data)

    monkeypatch.setattr(os, "write", fail)
    setup.streams.publish("1")
    await delivered(setup.streams)
    assert client.reasons == [reason]
    assert other.read() == HEAD + b"data: 1\n\n"


@pytest.mark.parametrize("sent", [b"", b"GET /next HTTP/1.1\r\n\r\n"])
async def test_a_client_that_has_sent_more_than_was_read_gets_all_and_no_reset(setup: Setup, sent: bytes) -> None:
    client = setup.following(tcp=True)
    setup.streams.publish("1")
    await delivered(setup.streams)
    client.far.sendall(sent)
    if sent:
        assert select.select([client.link.fd], [], [], 10)[0]  # it lies there
    client.link.close(Reason.KICKED)
    await until(client.is_over)  # a reset would raise
    assert client.received.startswith(HEAD + b"data: 1\n\n")
    assert client.received.endswith(b'{"reason":"kicked"}\n\n')
    assert client.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize("tcp", [True, False])
async def test_what_a_client_goes_on_sending_is_dropped_and_its_departure_seen(setup: Setup, tcp: bool) -> None:
    client = setup.following(tcp=tcp)
    sent = 0
    async with asyncio.timeout(15):
        while sent < 20 * 2**20:  # more than the kernel keeps
            with contextlib.suppress(BlockingIOError):
                sent += client.far.send(b"x" * 2**16)
            await asyncio.sleep(0)
    setup.streams.publish("still here")
    await client.read_until(lambda: b"still here" in client.received)
    client.far.close()
    await until(lambda: client.reasons == [Reason.CLIENT_CLOSED])


async def test_a_descriptor_is_closed_once(setup: Setup) -> None:
    client = setup.following()
    fd = client.link.fd
    client.link.end(Reason.KICKED)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    client.link.end(Reason.KICKED)
    client.link.flush()
    assert len(setup.streamer) == 0


# The streamer.


async def test_closing_cuts_all_that_is_left() -> None:
    setup = Setup()
    following, waiting, full = setup.following(), setup.client(), setup.following(buffer=4096)
    setup.streams.publish(*["x" * 3000] * 500)
    await delivered(setup.streams)
    assert full.link.stalled
    assert len(setup.streamer) == 3
    setup.streamer.close()
    assert [client.reasons for client in setup.clients] == [[Reason.SHUTDOWN]] * 3
    assert len(setup.streamer) == 0
    assert waiting.handover.told == 1
    assert following.is_over()
    for client in setup.clients:
        client.far.close()


class Ready:
    """What the streamer knows of a link, for a socket that has room."""

    def __init__(self, setup: Setup, seconds: float) -> None:
        self.setup, self.seconds = setup, seconds
        self.near, self.far = socket.socketpair()
        self.fd = self.near.fileno()
        self.masks: list[int] = []
        self.instead: Callable[[], None] | None = None
        setup.streamer.watch(self)  # type: ignore[arg-type]
        setup.streamer.await_room(self)  # type: ignore[arg-type]

    def ready(self, mask: int) -> None:
        self.masks.append(mask)
        self.setup.time += self.seconds
        if self.instead is not None:
            self.instead()
        self.setup.streamer.have_room(self)  # type: ignore[arg-type]

    def end(self, reason: Reason) -> None:
        self.setup.streamer.forget(self)  # type: ignore[arg-type]
        self.near.close()
        self.far.close()


@pytest.mark.parametrize(
    ("seconds", "each_turn"), [(0.0, BATCH_SOCKETS), (SLICE_SECONDS * 0.3, 4), (SLICE_SECONDS * 2, 1)]
)
async def test_so_many_sockets_are_handled_in_a_turn_of_the_loop(setup: Setup, seconds: float, each_turn: int) -> None:
    links = [Ready(setup, seconds) for _ in range(BATCH_SOCKETS + 20)]
    handled = [0]
    while handled[-1] < len(links):
        setup.streamer._ready()
        handled.append(sum(len(link.masks) for link in links))
    turns = [after - before for before, after in itertools.pairwise(handled)]
    assert turns[0] == each_turn
    assert turns[:-1] == [each_turn] * (len(turns) - 1)
    assert all(link.masks == [select.EPOLLOUT] for link in links)


async def test_a_link_that_another_one_has_ended_in_the_same_batch_is_not_handled(setup: Setup) -> None:
    first, second = links = [Ready(setup, 0.0) for _ in range(2)]
    first.instead = lambda: second.end(Reason.KICKED)
    second.instead = lambda: first.end(Reason.KICKED)
    setup.streamer._ready()
    assert sum(len(link.masks) for link in links) == 1


@pytest.mark.skipif(not AVAILABLE, reason="there is no epoll")
async def test_a_socket_that_cannot_be_watched_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()

    def refuse(link: SocketLink) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    monkeypatch.setattr(setup.streamer, "watch", refuse)
    near, far = socket.socketpair()
    with far:
        with pytest.raises(OSError, match="no more watches"):
            SocketLink(setup.streams.links, setup.streamer, Handover(near))
        far.settimeout(10)
        assert far.recv(1) == b""
    setup.streamer.close()
