"""Fetching keys: what is at the https address of an issuer's keys (RFC 7517, 5)."""

from __future__ import annotations

import http.client
import time

from ssepool.config import KiB

PREFIX = "https://"
"""What an address begins with: keys that somebody may change on their way are no keys."""
MAX_BYTES = 64 * KiB
"""Bytes of the answer at most."""
TIMEOUT_SECONDS = 10.0
"""Seconds that each step of a request may take, and its answer."""


class Unavailable(Exception):
    """An address does not answer, or not with keys."""


def fetch(url: str) -> bytes:
    """What is at an https address. Blocks for some `TIMEOUT_SECONDS` at most.

    The certificate is checked with those of the system, or of `SSL_CERT_FILE`. A redirect is not followed: it would
    have somebody else say whose tokens count. Raises `Unavailable`.
    """
    if not url.startswith(PREFIX):
        raise Unavailable(f"{url} is no https address")
    # urllib looks at proxies of the environment, and takes 50 ms to be imported.
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (request.ProxyHandler, request.HTTPSHandler, request.HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(request.HTTPDefaultErrorHandler())
    asked = request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
    try:
        with opener.open(asked, timeout=TIMEOUT_SECONDS) as answer:
            return _read(answer, url)
    except (OSError, ValueError, http.client.HTTPException) as error:  # OSError: those of urllib and TLS, too
        raise Unavailable(f"{url} does not answer with keys: {error}") from error


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    if answer.status != 200:
        raise Unavailable(f"{url} answers {answer.status}")
    body = b""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while chunk := answer.read1(MAX_BYTES + 1 - len(body)):
        body += chunk
        if len(body) > MAX_BYTES:
            raise Unavailable(f"{url} answers with more than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"{url} takes more than {TIMEOUT_SECONDS:g} s to answer")
    return body
