"""The server that requests go to, and templates of requests with blanks to fill in."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ssepool.errors import ConfigError

SOURCE_ADDRESSES = tuple(f"127.0.0.{last}" for last in range(1, 9))
"""The addresses that connections within this machine come from: one alone has too few ports for 20,000 of them."""

_BLANK = re.compile(r"(\{(?:n|t|i|data)\})")


class Template:
    """A text with the blanks `{n}`, `{t}`, `{i}` and `{data}`, whose meaning is that of `Plan.body`."""

    def __init__(self, text: str) -> None:
        self._parts = [part.encode() for part in _BLANK.split(text)]
        self._blanks = [(at, self._parts[at].decode()) for at in range(1, len(self._parts), 2)]

    @property
    def blanks(self) -> frozenset[str]:
        """The names of the blanks in the text, with their braces."""
        return frozenset(name for _, name in self._blanks)

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """The text with all its blanks filled in. `values` has the value of each blank, by its name with the braces."""
        if not self._blanks:
            return self._parts[0]
        parts = self._parts.copy()
        for at, name in self._blanks:
            parts[at] = values[name]
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, and the resource that is asked for there."""

    family: socket.AddressFamily
    """IPv4 or IPv6."""
    address: tuple[str, int]
    """The IP address and the port."""
    host: str
    """The host and the port as the header field `Host` has them."""
    path: str
    """The path with the query; it may have blanks."""
    is_loopback: bool
    """Whether the server is on this machine."""

    @classmethod
    def of(cls, url: str, *, remote: bool) -> Target:
        """Take a URL apart and look its host up.

        Raises `ConfigError` for a text that is not an `http` URL, for an unknown host, and for a host that is not this
        machine, unless `remote` allows it.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        is_usable = parts.scheme == "http" and parts.hostname and port and "@" not in parts.netloc
        if not is_usable or not url.isprintable() or " " in url:
            raise ConfigError(f"{url!r} is not a URL to measure; it takes http://host:port/path, without TLS")
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"{parts.hostname} of {url!r} is not known: {error.strerror}") from None
        # A name of this machine often has an address of each family, and servers often listen on IPv4 alone.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        is_loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        if not is_loopback and not remote:
            raise ConfigError(f"{address[0]} of {url!r} is not this machine; --remote allows it")
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        return cls(family, (str(address[0]), port), parts.netloc, path, is_loopback)

    @property
    def sources(self) -> tuple[str, ...]:
        """The addresses to connect from; if there are none, the kernel chooses."""
        return (
            SOURCE_ADDRESSES if self.is_loopback and self.family == socket.AF_INET and sys.platform == "linux" else ()
        )

    def head(self, method: str, fields: Sequence[str]) -> str:
        """The head of a request without its last line end, so that more fields can follow; it may have blanks."""
        return "\r\n".join([f"{method} {self.path} HTTP/1.1", f"Host: {self.host}", *fields, ""])
