"""URLs: what is secret in those of brokers."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

TOKEN_SCHEMES = ("nats", "tls")
"""Schemes of brokers whose URL may have a token in the place of user and password."""


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
