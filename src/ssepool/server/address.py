"""The address of the stand-alone server: whether it may be served, the socket that listens there, and its URL."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat

from ssepool.config import ServerConfig
from ssepool.errors import ConfigError
from ssepool.runtime.handover import set_bounds

UNIX_SOCKET_MODE = 0o660
"""Who may connect to a Unix socket: its user, and its group for a proxy."""


def listen(config: ServerConfig, ack_timeout: float) -> socket.socket:
    """A socket that listens where the configuration says. Raises `ConfigError` if that cannot be done."""
    if config.uds is not None:
        return listen_unix(config.uds, UNIX_SOCKET_MODE, config.backlog)
    return listen_tcp(config.host, config.port, config.backlog, ack_timeout, setting="host")


def listen_tcp(host: str, port: int, backlog: int, ack_timeout: float, *, setting: str) -> socket.socket:
    """A socket that listens at a port. `ack_timeout` is in seconds, `setting` is what has the host. Raises
    `ConfigError`."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"ServerConfig.{setting} = {host!r} is not an address to listen on: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it, so a peer that is gone without a FIN is found on every path.
        set_bounds(listener.fileno(), ack_timeout)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def listen_unix(path: str, mode: int, backlog: int) -> socket.socket:
    """A socket that listens at a path, with this mode; one that a killed server left there is replaced. Raises
    `ConfigError`."""
    try:
        listener = socket.socket(socket.AF_UNIX)
    except (AttributeError, OSError) as error:
        raise ConfigError(f"unix:{path} cannot be listened on: this system has no Unix sockets") from error
    # Never open to others, not even between two calls. A proxy that has another user is put into the group.
    mask = os.umask(0o777 & ~mode)
    try:
        if _is_left_over(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on the Unix socket {path}: {error.strerror or error}") from error
    finally:
        os.umask(mask)
    return listener


def _is_left_over(path: str) -> bool:
    """Whether a socket lies there on which nobody listens: its server was killed."""
    if not os.path.lexists(path) or not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def close(listener: socket.socket, url: str) -> None:
    """Close a socket that listens, and remove it if its URL is that of a Unix socket."""
    listener.close()
    remove(url)


def remove(url: str) -> None:
    """Take a Unix socket out of its folder, if it is still there; for any other URL this does nothing."""
    if url.startswith("unix:"):
        with contextlib.suppress(OSError):  # somebody has removed it, or its folder is not ours any more
            os.unlink(url.removeprefix("unix:"))


def url_of(listener: socket.socket) -> str:
    """The URL under which a listening socket is reached; of a Unix socket `unix:` and its path."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_address(config: ServerConfig, *, dev: bool) -> None:
    """Raise `ConfigError` for an address that others can reach, if everything is open there (`dev`)."""
    if dev and config.uds is None and not is_loopback(config.host):
        raise ConfigError(
            f"host {config.host!r} is not a loopback address, and --dev opens everything to whoever reaches it; "
            "without --dev the hub listens anywhere, and settings say who may do what (docs/access.md)"
        )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
