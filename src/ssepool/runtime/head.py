"""Head: what a request's head has to be beyond what the parser sees to (RFC 9112)."""

from __future__ import annotations

import re
from functools import lru_cache

from ssepool.runtime.wire import BAD_HOST, FAULTY_FRAMING, NO_TUNNEL, UNKNOWN_CODING, WRONG_VERSION

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")


@lru_cache(256)
def is_host(value: bytes) -> bool:
    """Whether this is a host and perhaps a port (RFC 3986, 3.2.2). Nothing is one, too: `Host` is empty where a target
    has no authority."""
    return _HOST.fullmatch(value) is not None


def fault_of(method: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The answer to a request that is not taken, whoever serves it; None for all others.

    `version` is HTTP's, such as `1.1`. The names of `headers` are in lower case.
    """
    if version not in ("1.1", "1.0"):
        return WRONG_VERSION
    if method == b"CONNECT":
        return NO_TUNNEL
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not is_host(value):
                return BAD_HOST
        elif name == b"transfer-encoding":
            if version == "1.0":
                return FAULTY_FRAMING
            if value.lower() != b"chunked":
                return UNKNOWN_CODING
    # HTTP/1.0 has no such field, and may have it.
    return BAD_HOST if hosts > 1 or (hosts == 0 and version == "1.1") else None


def take_authority(target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Have the authority of a target in absolute form count in place of `Host` (RFC 9112, 3.2.2)."""
    places = [index for index, (name, _) in enumerate(headers) if name == b"host"]
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.isalpha() and len(places) == 1:  # with no `Host` or two the request is refused
        headers[places[0]] = (b"host", re.split(rb"[/?#]", rest, maxsplit=1)[0].rpartition(b"@")[2])
