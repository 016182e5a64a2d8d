"""systemd: the socket that it listens on for a service, and what a service tells it of itself. Without systemd both do
nothing. See sd_listen_fds(3) and sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket

from ssepool.errors import ConfigError

FIRST_FD = 3
"""The descriptor of the first socket that is passed."""


def inherited() -> int | None:
    """The descriptor of the listening socket that systemd has passed to this process; None if it has passed none.
    Raises `ConfigError` for several."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # none, or meant for the process that has started this one
    number = os.environ.get("LISTEN_FDS", "0")
    if number == "0":
        return None
    if number != "1":
        raise ConfigError(f"systemd passes {number} sockets; it takes one, so leave one ListenStream= in the unit")
    return FIRST_FD


def notify(state: str) -> None:
    """Tell systemd, where it wants to know (`Type=notify`), what this service does: `READY=1`, `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address  # an abstract one
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
        teller.sendto(state.encode(), name)  # nobody there who could be told: nothing to be done about it
