"""The address of the stand-alone server: whether it may be served, the socket that listens there, and its URL."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat

from ssepool.config import ServerConfig
from ssepool.errors import ConfigError
from ssepool.runtime.handover import is_unix, set_bounds
from ssepool.server import systemd

UNIX_SOCKET_MODE = 0o660
"""Who may connect to a Unix socket: its user, and its group for a proxy."""


def inherited(config: ServerConfig) -> int | None:
    """The descriptor of the socket that another process has made, and goes on listening at when this one has ended;
    None if it is ours to make. Raises `ConfigError`."""
    return config.fd if config.fd is not None else systemd.inherited()


def listen(config: ServerConfig, ack_timeout: float) -> socket.socket:
    """A socket that listens where the configuration says, or else where systemd does. Raises `ConfigError` if that
    cannot be done."""
    if (fd := inherited(config)) is not None:
        return take_over(fd, ack_timeout, dev=config.dev)
    if config.uds is not None:
        return listen_unix(config.uds, UNIX_SOCKET_MODE, config.backlog)
    return listen_tcp(config.host, config.port, config.backlog, ack_timeout, setting="host")


def take_over(fd: int, ack_timeout: float, *, dev: bool) -> socket.socket:
    """The socket of a descriptor that this process was started with. `ack_timeout` is in seconds. Raises `ConfigError`
    for one that does not listen, and for one that others can reach if everything is open there (`dev`)."""
    try:
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigError(f"descriptor {fd} is no socket to listen on: {error.strerror or error}") from error
    try:
        _check_listens(listener, fd)
        if dev and not is_unix(listener):
            _check_loopback(listener.getsockname()[0])
    except ConfigError:
        listener.detach()  # it is still the caller's
        raise
    if not is_unix(listener):
        set_bounds(listener.fileno(), ack_timeout)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _check_listens(listener: socket.socket, fd: int) -> None:
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(
            f"descriptor {fd} is a socket that does not listen; it takes one on which `listen` was called"
        )


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


def release(config: ServerConfig, listener: socket.socket) -> None:
    """Close what `listen` has returned. A Unix socket is removed, unless another process has made it."""
    url = url_of(listener) if inherited(config) is None else ""
    close(listener, url)


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
    if dev and config.uds is None and config.fd is None:
        _check_loopback(config.host)


def _check_loopback(host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(
            f"host {host!r} is not a loopback address, and --dev opens everything to whoever reaches it; "
            "without --dev the hub listens anywhere, and settings say who may do what (docs/access.md)"
        )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
