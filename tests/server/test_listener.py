"""Listener: what it recognises, and that everything else is served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import pytest

from live import LiveServer, Stream, serve, wait_for
from parts import Applicant
from ssepool.config import PoolConfig
from ssepool.core.callers import MIN_SHARE, Callers, Place
from ssepool.core.fields import FIELDS, fields_of
from ssepool.core.pool import Pool
from ssepool.core.states import SlotState
from ssepool.runtime.handover import AVAILABLE, Handover
from ssepool.runtime.proxies import TrustedProxies
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.server.balance import ROW_FIELDS, STALE_SECONDS, Balance
from ssepool.server.listener import (
    FIRST_READ_BYTES,
    HAND_ON_BATCH,
    LEAVE_SECONDS,
    PAUSE_SECONDS,
    TELL_SECONDS,
    Listener,
    subscription_scope,
)
from virtual import in_virtual_time, now

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="sockets are detached on Linux only")

HOST = b"Host: localhost\r\n"
PLAIN = b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n"

NOT_RECOGNISED = {
    "unfinished": PLAIN[:-2],
    "another method": PLAIN.replace(b"GET", b"HEAD", 1),
    "absolute form": PLAIN.replace(b"/events", b"http://localhost/events"),
    "HTTP/1.0": PLAIN.replace(b"1.1", b"1.0", 1),
    "two requests": PLAIN + PLAIN,
    "with a body": PLAIN.replace(HOST, HOST + b"Content-Length: 0\r\n"),
    "chunked": PLAIN.replace(HOST, HOST + b"Transfer-Encoding: chunked\r\n"),
    "an upgrade": PLAIN.replace(HOST, HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
    "expecting 100": PLAIN.replace(HOST, HOST + b"Expect: 100-continue\r\n"),
    "not HTTP": b"GET\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01",
}


def test_a_plain_get_is_recognised() -> None:
    scope = subscription_scope(PLAIN, ("127.0.0.1", 5))
    assert scope is not None
    assert (scope["path"], scope["query_string"], scope["client"]) == ("/events", b"topic=a", ("127.0.0.1", 5))
    assert (b"accept", b"text/event-stream") in scope["headers"]
    assert fields_of(scope) is scope[FIELDS]
    assert scope[FIELDS] == dict(scope["headers"])


@pytest.mark.parametrize("data", NOT_RECOGNISED.values(), ids=NOT_RECOGNISED)
def test_all_else_is_not(data: bytes) -> None:
    assert subscription_scope(data, ("127.0.0.1", 5)) is None


@pytest.fixture(scope="module")
def server() -> Any:
    with serve("detached", size=20) as server:
        yield server


ODD = {
    "absolute form": (PLAIN.replace(b"/events", b"http://localhost:80/events"), 200),
    "absolute form with another name": (PLAIN.replace(b"/events", b"http://evil.example/events"), 421),
    "absolute form with a name and another": (PLAIN.replace(b"/events", b"http://localhost@evil.example/events"), 421),
    "absolute form without host": (b"GET http://localhost/events?topic=a HTTP/1.1\r\n\r\n", 400),
    "absolute form with two hosts": (
        PLAIN.replace(b"/events", b"http://localhost/events").replace(HOST, 2 * HOST),
        400,
    ),
    "absolute form with an address": (PLAIN.replace(b"/events", b"http://[::1]:80/events"), 200),
    "a name and its absolute form": (
        PLAIN.replace(b"/events", b"http://localhost/events").replace(HOST, b"Host: evil.example\r\n"),
        200,
    ),
    "two hosts": (PLAIN.replace(HOST, 2 * HOST), 400),
    "HTTP/1.0": (NOT_RECOGNISED["HTTP/1.0"], 200),
    "no host": (b"GET /events?topic=a HTTP/1.1\r\n\r\n", 400),
    "another name": (PLAIN.replace(b"localhost", b"evil.example"), 421),
    "empty lines first": (b"\r\n\r\n" + PLAIN, 200),
    "two requests": (PLAIN + PLAIN, 200),
    "bytes in the path": (PLAIN.replace(b"/events", b"/\xc3\xa9vents"), 400),
    "bytes that are not UTF-8": (PLAIN.replace(b"topic=a", b"topic=%ff"), 400),
    "no topic": (PLAIN.replace(b"?topic=a", b""), 400),
    "data without end": (PLAIN.replace(b"topic=a", b"topic=a&data=" + b"[" * 2000), 400),
    "another path": (PLAIN.replace(b"/events", b"/nothing"), 404),
}


@pytest.mark.parametrize(("request_", "status"), ODD.values(), ids=ODD)
def test_odd_requests_are_answered(server: LiveServer, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
        client.sendall(request_)
        assert client.recv(12) == b"HTTP/1.1 %d" % status
    server.wait_pool(open=0)


def test_a_request_in_single_bytes_is_served(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PLAIN:
            client.sendall(bytes([byte]))
        assert client.recv(12) == b"HTTP/1.1 200"
    server.wait_pool(open=0)


def test_clients_that_say_nothing_and_leave_cost_nothing(server: LiveServer) -> None:
    before = server.descriptors()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    with Stream(server, "a") as stream:
        stream.opened()
    for client in silent:
        client.close()
    server.wait_pool(open=0)
    wait_for(lambda: server.descriptors() <= before, what=f"{before} descriptors")


@pytest.fixture
async def broken() -> AsyncIterator[tuple[str, int]]:
    """The address of a listener that fails at every request that it is to admit."""

    def fail(scope: Any, take: Any) -> bool:
        raise RuntimeError("on purpose")

    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    address = sock.getsockname()
    listener = Listener(
        sock,
        admit=fail,
        hand_on=lambda conn, data, place: conn.close(),
        head_timeout=5.0,
        proxies=TrustedProxies(()),
        callers=Callers(lambda: 10),
        pool=Pool(),
        now=time.monotonic,
    )
    yield address
    listener.close()


async def test_a_defect_costs_one_client_and_not_the_listener(
    broken: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "ssepool"):
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*broken)
            writer.write(PLAIN)
            assert await asyncio.wait_for(reader.read(), 15) == b""
            writer.close()
            await writer.wait_closed()
    assert len(caplog.records) == 2


# Without a server: clients that a test lets in, in virtual time.


class Door:
    """Stands for a socket that listens: its clients are pairs of sockets, from whichever address a test wants."""

    def __init__(self) -> None:
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._outside: list[tuple[int, Any]] = []
        self.error: OSError | None = None
        """What accepting fails with."""
        self.tries = 0

    def knock(self, data: bytes = b"", address: Any = ("127.0.0.1", 5)) -> socket.socket:
        """A client that has connected and said this."""
        client, server = socket.socketpair()
        client.setblocking(False)
        client.sendall(data)
        self._outside.append((server.detach(), address))
        self._ring.sendall(b"!")
        return client

    @property
    def outside(self) -> int:
        """Clients that have not been accepted."""
        return len(self._outside)

    def _accept(self) -> tuple[int, Any]:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self._bell.recv(1)
        return self._outside.pop(0)

    def fileno(self) -> int:
        return self._bell.fileno()

    def close(self) -> None:
        for fd, _ in self._outside:
            os.close(fd)
        self._bell.close()
        self._ring.close()


class Scripted:
    """A listener, and what it has done with the clients of a door."""

    def __init__(self, *, admits: bool = True, shortcuts: bool = True, max_callers: int = 100, **options: Any) -> None:
        self.admits = admits
        self.door = Door()
        self.pool = Pool(PoolConfig(size=3))
        self.pool.open()
        self.scopes: list[dict[str, Any]] = []
        """Subscriptions that were offered."""
        self.admitted: list[Handover] = []
        self.handed_on: list[tuple[socket.socket, bytes, Place]] = []
        self.callers = Callers(lambda: max_callers)
        self.listener = Listener(
            self.door,  # type: ignore[arg-type]
            admit=self.admit if shortcuts else None,
            hand_on=lambda conn, data, place: self.handed_on.append((conn, data, place)),
            callers=self.callers,
            **{"head_timeout": 5.0, "proxies": TrustedProxies(()), "pool": self.pool, "now": now(), **options},
        )

    def admit(self, scope: dict[str, Any], take: Callable[[], Handover]) -> bool:
        self.scopes.append(scope)
        if self.admits:
            self.admitted.append(take())
        return self.admits

    def close(self) -> None:
        if self.door.fileno() >= 0:
            self.listener.close()
        while self.admitted:
            os.close(self.admitted.pop().fd)
        for conn, _, _ in self.handed_on:
            conn.close()


@contextlib.contextmanager
def listening(**options: Any) -> Iterator[Scripted]:
    """A listener that leaves as many descriptors open as there were before."""
    before = len(os.listdir("/proc/self/fd"))
    subject = Scripted(**options)
    try:
        yield subject
    finally:
        subject.close()
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer, if something of another test was collected


def is_closed(client: socket.socket) -> bool:
    """Whether the other end has been closed."""
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:  # with something that it had not read
        return True


async def turns() -> None:
    """Let the event loop do what is ready."""
    await asyncio.sleep(0.001)


@in_virtual_time
async def test_a_whole_subscription_goes_to_admission_with_its_socket() -> None:
    with listening() as subject, subject.door.knock(PLAIN, ("10.0.0.7", 99)) as client:
        await turns()
        ((scope,), (handover,)) = subject.scopes, subject.admitted
        assert (scope["path"], scope["query_string"], scope["client"]) == ("/events", b"topic=a", ("10.0.0.7", 99))
        assert os.get_blocking(handover.fd) is False
        os.write(handover.fd, b"hello")
        assert client.recv(100) == b"hello"
        assert subject.handed_on == []


@in_virtual_time
async def test_an_address_of_version_6_is_a_host_and_a_port() -> None:
    with listening() as subject, subject.door.knock(PLAIN, ("::1", 99, 0, 0)):
        await turns()
        assert subject.scopes[0]["client"] == ("::1", 99)


@in_virtual_time
async def test_what_admission_leaves_is_handed_on_with_what_was_read() -> None:
    with listening(admits=False) as subject, subject.door.knock(PLAIN) as client:
        await turns()
        assert len(subject.scopes) == 1
        ((conn, data, _),) = subject.handed_on
        assert data == PLAIN
        conn.sendall(b"hello")
        assert client.recv(100) == b"hello"


@pytest.mark.parametrize("data", NOT_RECOGNISED.values(), ids=NOT_RECOGNISED)
@in_virtual_time
async def test_what_is_not_recognised_is_handed_on_and_not_offered(data: bytes) -> None:
    with listening() as subject, subject.door.knock(data):
        await turns()
        assert [data for _, data, _ in subject.handed_on] == [data]
        assert subject.scopes == []


@in_virtual_time
async def test_without_shortcuts_all_is_handed_on() -> None:
    with listening(shortcuts=False) as subject, subject.door.knock(PLAIN):
        await turns()
        assert [data for _, data, _ in subject.handed_on] == [PLAIN]


@in_virtual_time
async def test_no_more_than_one_packet_is_read() -> None:
    long = PLAIN + b"x" * 2 * FIRST_READ_BYTES
    with listening() as subject, subject.door.knock(long):
        await turns()
        ((conn, data, _),) = subject.handed_on
        assert data + conn.recv(len(long)) == long
        assert len(data) == FIRST_READ_BYTES


@in_virtual_time
async def test_a_client_that_speaks_in_time_is_served() -> None:
    with listening(head_timeout=5.0) as subject, subject.door.knock() as client:
        await asyncio.sleep(4.9)
        client.sendall(PLAIN)
        await turns()
        assert len(subject.admitted) == 1
        await asyncio.sleep(10.0)
        assert not is_closed(client)


@in_virtual_time
async def test_a_client_that_seemed_to_speak_is_not_forgotten() -> None:
    with listening(head_timeout=5.0) as subject, subject.door.knock() as client:
        await turns()
        (fd,) = subject.listener._silent
        subject.listener._read(fd, ("127.0.0.1", 5))  # woken for nothing
        client.sendall(PLAIN)
        await asyncio.sleep(10.0)
        assert len(subject.admitted) == 1
        assert not is_closed(client)


@in_virtual_time
async def test_a_client_that_says_nothing_is_closed() -> None:
    with listening(head_timeout=5.0) as subject, subject.door.knock() as client:
        await asyncio.sleep(4.9)
        assert not is_closed(client)
        await asyncio.sleep(0.2)
        assert is_closed(client)
        assert (subject.scopes, subject.handed_on) == ([], [])


@in_virtual_time
async def test_a_client_that_leaves_without_a_word_is_forgotten() -> None:
    with listening() as subject:
        early, late = subject.door.knock(), subject.door.knock()
        early.close()
        await turns()
        late.close()
        await asyncio.sleep(10.0)
        assert (subject.door.outside, subject.scopes, subject.handed_on) == (0, [], [])


@in_virtual_time
async def test_a_client_that_broke_off_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(fd: int, size: int) -> bytes:
        raise ConnectionResetError(errno.ECONNRESET, "on purpose")

    with listening() as subject, subject.door.knock(PLAIN) as client:
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", reset)
            subject.listener._accept()
        assert is_closed(client)
        assert (subject.scopes, subject.handed_on) == ([], [])


@pytest.mark.parametrize("takes", [False, True])
@in_virtual_time
async def test_a_socket_is_closed_once_by_whoever_has_it_when_admission_fails(
    takes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as subject, subject.door.knock(PLAIN) as client:

        def fail(scope: Any, take: Callable[[], Handover]) -> bool:
            if takes:
                subject.admitted.append(take())
            raise RuntimeError("on purpose")

        subject.listener._take_in = fail
        await turns()
        assert "could not be admitted" in caplog.text
        assert subject.handed_on == []
        assert is_closed(client) is not takes


FORWARDED = PLAIN.replace(HOST, HOST + b"X-Forwarded-For: 1.2.3.4\r\n")


@pytest.mark.parametrize(("peer", "client"), [("10.0.0.7", "1.2.3.4"), ("10.0.0.8", "10.0.0.8")])
@in_virtual_time
async def test_a_proxy_that_is_trusted_tells_the_clients_address(peer: str, client: str) -> None:
    proxies = TrustedProxies(("10.0.0.7",))
    with listening(proxies=proxies) as subject, subject.door.knock(FORWARDED, (peer, 99)):
        await turns()
        assert subject.scopes[0]["client"][0] == client


@pytest.mark.parametrize(("peer", "client"), [("", ("1.2.3.4", 0)), (("10.0.0.8", 99), ("10.0.0.8", 99))])
@in_virtual_time
async def test_the_peer_of_a_unix_socket_is_a_proxy(peer: Any, client: Any) -> None:
    with listening() as subject, subject.door.knock(FORWARDED, peer):
        await turns()
        assert subject.scopes[0]["client"] == client


# Room for others.


@in_virtual_time
async def test_who_says_nothing_gives_way_to_who_comes() -> None:
    with listening(max_callers=2) as subject, subject.door.knock() as first, subject.door.knock() as second:
        await turns()
        with subject.door.knock() as third:
            await turns()
            assert [is_closed(client) for client in (first, second, third)] == [True, False, False]
            second.sendall(PLAIN)
            await turns()
            assert (len(subject.admitted), len(subject.callers)) == (1, 1)
            await asyncio.sleep(5.0)
            assert is_closed(third)
            assert len(subject.callers) == 0


@in_virtual_time
async def test_a_whole_subscription_makes_nobody_give_way() -> None:
    with listening(max_callers=1) as subject, subject.door.knock() as silent:
        await turns()
        with subject.door.knock(PLAIN), subject.door.knock(PLAIN):
            await turns()
            assert len(subject.admitted) == 2
            assert not is_closed(silent)
            assert len(subject.callers) == 1


@in_virtual_time
async def test_an_address_has_a_share_and_a_proxy_has_none() -> None:
    proxies = TrustedProxies(("10.0.0.7",))
    with (
        listening(max_callers=100, proxies=proxies) as subject,
        subject.door.knock(address=("10.0.0.8", 1)) as other,
        contextlib.ExitStack() as stack,
    ):
        for address in ("10.0.0.7", "10.0.0.9"):
            for _ in range(MIN_SHARE + 5):
                stack.enter_context(subject.door.knock(address=(address, 1)))
        await turns()
        assert (subject.callers.of("10.0.0.9"), len(subject.callers)) == (MIN_SHARE, 1 + MIN_SHARE + 5 + MIN_SHARE)
        assert not is_closed(other)


@in_virtual_time
async def test_what_is_handed_on_takes_its_place_with_it() -> None:
    with listening(admits=False) as subject, subject.door.knock() as client:
        await turns()
        client.sendall(PLAIN)
        await turns()
        ((_, _, place),) = subject.handed_on
        assert place.is_taken and len(subject.callers) == 1
        place.leave()
        assert len(subject.callers) == 0


# Accepting.


@in_virtual_time
async def test_all_who_wait_are_accepted_in_one_turn_and_in_order() -> None:
    with listening() as subject, contextlib.ExitStack() as clients:
        for number in range(20):
            clients.enter_context(subject.door.knock(PLAIN, ("127.0.0.1", number)))
        await turns()
        assert [scope["client"][1] for scope in subject.scopes] == list(range(20))


@in_virtual_time
async def test_accepting_leaves_turns_to_others() -> None:
    clock = count()
    with listening(now=lambda: next(clock) * SLICE_SECONDS / 3) as subject, contextlib.ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(subject.door.knock(PLAIN))
        subject.listener._accept()
        assert len(subject.scopes) == 2
        await turns()
        assert len(subject.scopes) == 20


@in_virtual_time
async def test_only_some_are_handed_on_in_a_turn_for_each_has_a_descriptor_until_its_protocol_is_made() -> None:
    with listening() as subject, contextlib.ExitStack() as clients:
        for _ in range(3 * HAND_ON_BATCH):
            clients.enter_context(subject.door.knock(b"POST /events HTTP/1.1\r\n"))
        for number in (1, 2, 3):
            subject.listener._accept()
            assert len(subject.handed_on) == number * HAND_ON_BATCH


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@in_virtual_time
async def test_where_no_descriptor_is_left_accepting_pauses_and_goes_on(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as subject, subject.door.knock(PLAIN):
        subject.door.error = OSError(code, os.strerror(code))
        await asyncio.sleep(3.5 * PAUSE_SECONDS)
        assert subject.door.tries == 4
        assert all(os.strerror(code) in line for line in caplog.messages)
        assert (len(caplog.messages), subject.scopes) == (4, [])
        subject.door.error = None
        await asyncio.sleep(PAUSE_SECONDS)
        assert len(subject.admitted) == 1


@in_virtual_time
async def test_a_client_that_left_before_it_was_accepted_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as subject, subject.door.knock(PLAIN):
        subject.door.error = ConnectionAbortedError(errno.ECONNABORTED, "on purpose")
        subject.listener._accept()
        subject.door.error = None
        await turns()
        assert (len(subject.admitted), caplog.messages) == (1, [])


@in_virtual_time
async def test_what_is_wrong_with_the_socket_itself_is_not_hidden() -> None:
    with listening() as subject:
        subject.door.error = OSError(errno.EINVAL, "on purpose")
        with pytest.raises(OSError, match="on purpose"):
            subject.listener._accept()


@pytest.mark.parametrize("trouble", ["silent clients", "no descriptors", "left to others"])
@in_virtual_time
async def test_closing_gives_every_descriptor_back_and_stops_every_timer(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Shared()
    balance = Balance(shared.table, 0) if trouble == "left to others" else None
    with listening(balance=balance) as subject, contextlib.ExitStack() as clients:
        silent = [clients.enter_context(subject.door.knock()) for _ in range(3)]
        await turns()
        if trouble == "no descriptors":
            subject.door.error = OSError(errno.EMFILE, "on purpose")
        elif trouble == "left to others":
            fill(subject.pool)
            shared.other(free=1, held=0)
        clients.enter_context(subject.door.knock(PLAIN))
        await turns()
        assert len(subject.admitted) == (trouble == "silent clients")
        subject.close()
        assert all(is_closed(client) for client in silent)
        tries, told = subject.door.tries, list(shared.table)
        await asyncio.sleep(100.0)
        assert (subject.door.tries, shared.table) == (tries, told)
        assert [record for record in caplog.records if record.name == "asyncio"] == []  # from callbacks that failed


# Among other workers.


class Shared:
    """The table of two workers, of which the first is tested."""

    def __init__(self) -> None:
        self.now = now()
        self.table = [0.0] * (2 * ROW_FIELDS)

    def other(self, *, free: int, held: int) -> None:
        self.table[ROW_FIELDS:] = [free, held, self.now()]


def fill(pool: Pool) -> None:
    while pool.count(SlotState.FREE):
        pool.acquire(0.0, Applicant())


@in_virtual_time
async def test_a_worker_leaves_clients_to_others_and_looks_again_soon() -> None:
    shared = Shared()
    with listening(balance=Balance(shared.table, 0)) as subject, subject.door.knock(PLAIN):
        fill(subject.pool)
        shared.other(free=1, held=0)
        began = now()()
        await asyncio.sleep(100.5 * LEAVE_SECONDS)
        assert (subject.door.tries, subject.door.outside) == (0, 1)
        shared.other(free=0, held=1)
        await asyncio.sleep(LEAVE_SECONDS)
        assert now()() - began < 1.0  # in which the other one has not been too quiet to count
        assert len(subject.scopes) == 1


@in_virtual_time
async def test_a_worker_takes_what_one_that_hangs_would_have() -> None:
    shared = Shared()
    with listening(balance=Balance(shared.table, 0)) as subject, subject.door.knock(PLAIN):
        fill(subject.pool)
        shared.other(free=1, held=0)
        await asyncio.sleep(STALE_SECONDS - 0.1)
        assert subject.scopes == []
        await asyncio.sleep(0.2)
        assert len(subject.scopes) == 1


@in_virtual_time
async def test_a_worker_tells_how_full_it_is_from_the_start_and_before_each_client() -> None:
    shared = Shared()
    with listening(balance=Balance(shared.table, 0)) as subject:
        assert shared.table[:ROW_FIELDS] == [3, 0, now()()]
        subject.pool.acquire(0.0, Applicant())
        with subject.door.knock(PLAIN):
            await turns()
            assert shared.table[:2] == [2, 1]
        fill(subject.pool)
        for _ in range(10):
            await asyncio.sleep(TELL_SECONDS)
            assert shared.table[:2] == [0, 3]
            assert now()() - shared.table[2] <= TELL_SECONDS
