"""Peers that vanish without a word, behind a cut link or dropped packets, are found by the kernel and heartbeats."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from live import DEADLINE, LiveServer, wait_for
from live_fixtures import Connect, Start
from tools import require

pytestmark = [
    # Every way for which docs/behaviour.md promises it.
    pytest.mark.paths("detached", "protocol", "plain", "uvicorn", "uvicorn plain"),
    pytest.mark.timeout(120),
]

CLONE_NEWNET = 0x40000000

# No other rule than that for dead peers comes into play.
VIGILANT = {
    "ack_timeout": 1,
    "heartbeat_interval": 1,
    "reap_interval": 0.1,
    "send_timeout": 600,
    "idle_timeout": 0,
    "size": 20,
}

numbers = itertools.count(1)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def far_away() -> Iterator[tuple[str, str]]:
    """A network namespace behind a link: its name, and this side's address. The link's other end is `far`."""
    ip = require("ip")
    number = next(numbers)
    name, near = f"ssepool-{os.getpid()}-{number}", f"sse{os.getpid()}-{number}"
    net = f"198.18.{(os.getpid() + number) % 256}"  # for tests between networks, RFC 2544
    run(ip, "netns", "add", name)
    try:
        run(ip, "link", "add", near, "type", "veth", "peer", "name", "far", "netns", name)
        run(ip, "addr", "add", f"{net}.1/24", "dev", near)
        run(ip, "link", "set", near, "up")
        run(ip, "-n", name, "addr", "add", f"{net}.2/24", "dev", "far")
        run(ip, "-n", name, "link", "set", "far", "up")
        yield name, f"{net}.1"
    finally:
        subprocess.run([ip, "link", "del", near], capture_output=True)  # if it came to that
        run(ip, "netns", "del", name)


def connect_from(namespace: str, address: tuple[str, int]) -> socket.socket:
    """A connection from inside a namespace: a socket stays in that of the thread which made it."""
    made: list[socket.socket] = []

    def enter() -> None:
        with open(f"/run/netns/{namespace}") as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_connection(address, timeout=DEADLINE))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


def subscribe(client: socket.socket) -> None:
    client.sendall(b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    seen = b""
    while b"ssepool.open" not in seen:
        seen += client.recv(65536)


@contextlib.contextmanager
def dropping(port: int) -> Iterator[None]:
    """Have the kernel drop what comes from this port and what goes to it."""
    nft = require("nft")
    table = f"ssepool_{os.getpid()}_{port}"
    rules = f"""
        table inet {table} {{
            chain gone {{
                type filter hook input priority 0;
                tcp sport {port} drop
                tcp dport {port} drop
            }}
        }}"""
    run(nft, rules)
    try:
        yield
    finally:
        run(nft, "delete", "table", "inet", table)


def test_a_peer_behind_a_cut_link_is_dead(start: Start, connect: Connect) -> None:
    with far_away() as (namespace, address):
        server: LiveServer = start(**VIGILANT, host="0.0.0.0")
        near = connect(server, "a").opened()
        far = [connect_from(namespace, (address, server.port)) for _ in range(5)]
        for client in far:
            subscribe(client)
        server.wait_pool(open=6)
        run(require("ip"), "-n", namespace, "link", "set", "far", "down")
        server.wait_pool(open=1, closing=0, released={"peer_dead": 5, "client_closed": 0})
        server.publish("a", "still here")
        near.wait_data("still here")
        wait_for(lambda: server.descriptors() == server.descriptors_at_rest + 1)
        for client in far:
            client.close()


def test_a_peer_whose_packets_are_dropped_is_dead(start: Start, connect: Connect) -> None:
    server = start(**VIGILANT)
    near, far = connect(server, "a").opened(), connect(server, "a").opened()
    with dropping(far.socket.getsockname()[1]):
        server.wait_pool(open=1, closing=0, released={"peer_dead": 1, "client_closed": 0})
        server.publish("a", "still here")
        near.wait_data("still here")
        wait_for(lambda: server.descriptors() == server.descriptors_at_rest + 1)


def test_events_find_a_dead_peer_without_any_heartbeat(start: Start, connect: Connect) -> None:
    server = start(**{**VIGILANT, "heartbeat_interval": 3600, "reap_interval": 3600})
    near, far = connect(server, "a").opened(), connect(server, "a").opened()
    with dropping(far.socket.getsockname()[1]):
        server.publish("a", "is anybody there?")
        near.wait_data("is anybody there?")
        server.wait_pool(open=1, closing=0, released={"peer_dead": 1, "client_closed": 0})


def test_a_dead_peer_can_be_sent_away_as_any_other(start: Start, connect: Connect) -> None:
    server = start(**{**VIGILANT, "send_timeout": 1, "ack_timeout": 60})
    far = connect(server, "a").opened()
    with dropping(far.socket.getsockname()[1]):
        assert server.request("DELETE", f"/connections/{far.connection}")[0] == 204
        server.wait_pool(open=0, closing=0, released={"kicked": 1})


def test_a_waiting_client_that_is_dead_costs_its_wait_and_no_slot(start: Start, connect: Connect) -> None:
    server = start(**{**VIGILANT, "size": 1, "acquire_timeout": 600})
    first = connect(server, "a").opened()
    dead = connect(server, "a")
    server.wait_pool(waiting=1)
    alive = connect(server, "a")
    server.wait_pool(waiting=2)
    with dropping(dead.socket.getsockname()[1]):
        first.close()  # the dead one is granted the slot: nothing was ever sent that it could have acknowledged
        alive.opened()
        server.wait_pool(open=1, waiting=0, released={"peer_dead": 1})
