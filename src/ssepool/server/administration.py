"""Administration of a stand-alone hub: the sockets that operators come in by, and what they meet there."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from ssepool import clock
from ssepool.config import HubConfig, ServerConfig
from ssepool.errors import ConfigError
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Everybody
from ssepool.http.app import HubApp, Surface
from ssepool.hub import Hub
from ssepool.runtime.handover import is_unix
from ssepool.server.address import close, listen_tcp, listen_unix, url_of
from ssepool.server.place import make_path
from ssepool.urls import host_port

SOCKET_MODE = 0o600
"""Who may open the Unix socket, and has all rights then: the hub's own user."""

BACKLOG = 64
"""Connections of operators that the kernel holds until they are accepted."""


def check_administration(hub: Hub, config: ServerConfig) -> None:
    """Raise `ConfigError` where administration is to be at a port, and nobody could ever show a right to it."""
    ports = [entry for entry in config.admin if host_port(entry)]
    door = hub.parts.door
    if ports and (door is None or not door.takes_credentials):
        raise ConfigError(
            f"ServerConfig.admin = {config.admin!r} is not allowed: at {ports[0]} administration takes rights, and no "
            "setting says whose credentials count (docs/access.md); without, it takes a Unix socket: unix:PATH or auto"
        )


def listen_for_operators(config: ServerConfig, public: socket.socket, hub: HubConfig) -> list[socket.socket]:
    """The sockets of administration of a server that listens at `public`; by default none where the system has no Unix
    sockets. Raises `ConfigError`."""
    found: list[socket.socket] = []
    try:
        for entry in config.admin:
            if (address := host_port(entry)) is not None:
                found.append(listen_tcp(*address, BACKLOG, hub.pool.ack_timeout, setting="admin"))
            elif entry != "none" and (entry != "auto" or hasattr(socket, "AF_UNIX")):
                path = entry.removeprefix("unix:") if entry != "auto" else str(make_path(_port(config, public)))
                found.append(listen_unix(path, SOCKET_MODE, BACKLOG))
    except BaseException:  # whatever it was, what listens already must not be left open
        for listener in found:
            close(listener, url_of(listener))
        raise
    return found


def _port(config: ServerConfig, public: socket.socket) -> int:
    name = public.getsockname()
    return config.port if isinstance(name, str) else int(name[1])


def operators_app(hub: Hub, listener: socket.socket) -> HubApp:
    """What operators meet at a socket: on a Unix socket its mode is the guard, at a port the hub's own door."""
    if not is_unix(listener):
        return hub.admin_app
    parts, door = hub.parts, Door([Everybody()], wall_clock=clock.wall_clock)
    return HubApp(
        Surface.ADMIN, parts.engine, parts.nodes, parts.revoking, parts.hosts, parts.budget, door, lifespan=None
    )


def hosts_of(config: ServerConfig) -> Sequence[str]:
    """The names under which administration is reached."""
    return [address[0] for entry in config.admin if (address := host_port(entry))]
