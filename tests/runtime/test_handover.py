"""What a server and the hub know of each other: the names, and when the kernel gives a peer up."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from ssepool.config import MAX_ACK_TIMEOUT_SECONDS, MiB
from ssepool.runtime import handover
from ssepool.runtime.handover import MAX_UNSENT_BYTES, set_ack_timeout, set_max_unsent

tcp_user_timeout = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def milliseconds(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_the_names_that_servers_offer_are_these() -> None:
    assert (handover.DETACH, handover.ALONE, handover.ABORT) == ("ssepool.detach", "ssepool.alone", "ssepool.abort")
    assert handover.CUT == "ssepool.cut"
    assert (sys.platform == "linux") is handover.AVAILABLE


@tcp_user_timeout
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (30.0, 30_000),
        (2.5, 2_500),
        (0.001, 1),
        (0.0001, 1),
        (0.0, 1),
        (1.9999, 1_999),
        (MAX_ACK_TIMEOUT_SECONDS, int(MAX_ACK_TIMEOUT_SECONDS * 1000)),
    ],
)
def test_a_tcp_socket_has_the_time_in_milliseconds_but_never_none(
    listener: socket.socket, seconds: float, expected: int
) -> None:
    with socket.create_connection(listener.getsockname()) as client:
        assert milliseconds(client) == 0
        set_ack_timeout(client.fileno(), seconds)
        assert milliseconds(client) == expected  # and the descriptor is still open


@tcp_user_timeout
def test_what_a_listener_accepts_inherits_it(listener: socket.socket) -> None:
    set_ack_timeout(listener.fileno(), 7.0)
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert milliseconds(accepted) == 7_000


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such option")
def test_the_kernel_takes_little_for_a_client_that_does_not_read(listener: socket.socket) -> None:
    def taken() -> int:
        with socket.create_connection(listener.getsockname()):  # which has an untouched buffer of its own
            accepted, _ = listener.accept()
            with accepted, contextlib.suppress(BlockingIOError):
                accepted.setblocking(False)
                total = 0
                while True:
                    total += accepted.send(b"x" * 4096)
        return total

    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MiB)
    before = taken()
    set_max_unsent(listener.fileno())
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == MAX_UNSENT_BYTES
    assert taken() < before - 2 * MAX_UNSENT_BYTES


SO_MEMINFO, WMEM_QUEUED = 55, 5
"""A socket's memory as the kernel counts it, overheads too (Linux, `SK_MEMINFO_WMEM_QUEUED` of linux/sock_diag.h)."""


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such option")
@pytest.mark.parametrize("window", [None, 4096], ids=["an ordinary window", "a tiny window"])
@pytest.mark.parametrize("size", [300, 16 * 1024, 256 * 1024])
def test_what_the_kernel_holds_for_a_client_that_does_not_read_is_bounded(
    listener: socket.socket, size: int, window: int | None
) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MiB)
    set_max_unsent(listener.fileno())
    with socket.socket() as client:
        if window is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.send(b"x" * size)
            counts = struct.unpack("9I", accepted.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
            assert 0 < counts[WMEM_QUEUED] <= 4 * MAX_UNSENT_BYTES


def test_a_unix_socket_has_no_such_option_and_is_left_alone() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        set_ack_timeout(ours.fileno(), 5.0)
        set_max_unsent(ours.fileno())
        ours.sendall(b"still open")
        assert peer.recv(100) == b"still open"


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "no socket"])
def test_what_is_no_socket_is_said_to_be_none(closed: bool) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    if closed:
        os.close(reader)
    with pytest.raises(OSError) as caught:
        set_ack_timeout(reader, 5.0)
    assert caught.value.errno == (errno.EBADF if closed else errno.ENOTSOCK)
    if not closed:
        os.close(reader)  # which raises if it was closed already


def test_a_system_without_the_option_is_left_alone(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    set_ack_timeout(listener.fileno(), 5.0)
    set_max_unsent(listener.fileno())
    monkeypatch.undo()
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert milliseconds(listener) == 0
