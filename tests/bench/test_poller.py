"""Waiting for sockets, to the fraction of a millisecond."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ssepool.bench.poller import READ, WRITE, Poller, Selector, best

if sys.platform == "linux":
    from ssepool.bench.poller import Epoll

POLLERS = [Selector, *([Epoll] if sys.platform == "linux" else [])]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Callable[[], Poller] = request.param
    poller = made()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("seconds", [0, 0.0001, 0.0004, 0.001, 0.0015, 0.01])
def test_what_is_ready_is_told_at_once(
    poller: Poller, pair: tuple[socket.socket, socket.socket], seconds: float
) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    assert poller.poll(seconds, 8) == []
    theirs.send(b"x")
    assert poller.poll(seconds, 8) == [(ours.fileno(), READ)]
    poller.modify(ours.fileno(), READ | WRITE)
    assert poller.poll(seconds, 8) == [(ours.fileno(), READ | WRITE)]
    poller.unregister(ours.fileno())
    assert poller.poll(seconds, 8) == []


def test_a_peer_that_has_left_is_to_be_read(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.close()
    [(fd, mask)] = poller.poll(0, 8)
    assert fd == ours.fileno() and mask & READ


@pytest.mark.skipif(sys.platform != "linux", reason="the other one rounds as its system does")
@pytest.mark.parametrize("seconds", [0.0003, 0.0009, 0.001, 0.0019, 0.002, 0.0031, 0.01])
def test_with_nothing_to_tell_the_wait_is_not_longer_than_asked(seconds: float) -> None:
    poller = Epoll()
    fastest = 1.0
    for _ in range(200):  # whoever else runs on this machine cannot be in the way each time
        began = time.monotonic()
        assert poller.poll(seconds, 8) == []
        fastest = min(fastest, time.monotonic() - began)
        if fastest < seconds + 0.0004:
            break
    poller.close()
    assert seconds - 0.0011 <= fastest < seconds + 0.0004


def test_linux_has_its_own() -> None:
    poller = best()
    assert type(poller).__name__ == ("Epoll" if sys.platform == "linux" else "Selector")
    poller.close()
