"""URLs: what is secret in those of brokers; origins and addresses, as settings have them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

TOKEN_SCHEMES = ("nats", "tls")
"""Schemes of brokers whose URL may have a token in the place of user and password."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(:[1-9][0-9]{0,4})?")


def without_password(url: str) -> str:
    """A URL for logs and messages, without anything that may be a password, even one written without escapes."""
    # Somebody may have forgotten the slashes, or one of them.
    scheme, separator, rest = re.fullmatch(r"(?s)([^:/@]*)(:/{0,2}|)(.*)", url).groups()  # type: ignore[union-attr]
    credentials, at, host = rest.rpartition("@")
    if ":" in credentials:
        credentials = credentials.partition(":")[0] + ":***"
    elif credentials and (scheme in TOKEN_SCHEMES or separator != "://"):
        credentials = "***"
    query = host.partition("?")
    shown = re.sub(r"(?i)(password|passwd|pass|secret|token)=[^&]*", r"\1=***", query[2])
    return f"{scheme}{separator}{credentials}{at}{query[0]}{query[1]}{shown}"


def password_of(url: str) -> str:
    """The password or the token in a URL; empty if there is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    return unquote(user if not colon and parts.scheme in TOKEN_SCHEMES else password)


def is_origin(text: str) -> bool:
    """Whether a browser could send this as an origin (RFC 6454, section 6.2): without the usual port, above all."""
    found = _ORIGIN.fullmatch(text)
    return found is not None and found.groups() not in (("http", ":80"), ("https", ":443"))


def host_port(text: str) -> tuple[str, int] | None:
    """Host and port of an address such as 127.0.0.1:9000 or [::1]:9000; None for other text."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/@\s]+)):([0-9]{1,5})", text)
    if found is None or int(found[3]) > 65535:
        return None
    return found[1] or found[2], int(found[3])


def is_network(text: str) -> bool:
    """Whether a text is an address or a network, such as 10.0.0.0/8."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
