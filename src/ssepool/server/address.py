"""The address of the stand-alone server: whether it may be served, the socket that listens there, and its URL."""

from __future__ import annotations

import ipaddress
import socket

from ssepool.config import ServerConfig
from ssepool.errors import ConfigError
from ssepool.runtime.handover import set_bounds


def listen(config: ServerConfig, ack_timeout: float) -> socket.socket:
    """A socket that listens where the configuration says. Raises `ConfigError` if that cannot be done."""
    host, port = config.host, config.port
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"ServerConfig.host = {host!r} is not an address to listen on: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it, so a peer that is gone without a FIN is found on every path.
        set_bounds(listener.fileno(), ack_timeout)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(config.backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL under which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_address(config: ServerConfig) -> None:
    """Raise `ConfigError` for an address that others can reach, unless `insecure` is set."""
    if not config.insecure and not is_loopback(config.host):
        raise ConfigError(
            f"host {config.host!r} is not a loopback address, and the hub has no access control yet: whoever reaches "
            "it may read and publish everything. Put a proxy in front, or say --insecure if that is what you want"
        )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
