"""What a server and the hub know of each other: the names, and when the kernel gives a peer up."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from ssepool.config import MAX_ACK_TIMEOUT_SECONDS
from ssepool.runtime import handover
from ssepool.runtime.handover import set_ack_timeout

tcp_user_timeout = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def milliseconds(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_the_names_that_servers_offer_are_these() -> None:
    assert (handover.DETACH, handover.ALONE, handover.ABORT) == ("ssepool.detach", "ssepool.alone", "ssepool.abort")
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


def test_a_unix_socket_has_no_such_option_and_is_left_alone() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        set_ack_timeout(ours.fileno(), 5.0)
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
    set_ack_timeout(listener.fileno(), 5.0)
    monkeypatch.undo()
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert milliseconds(listener) == 0
