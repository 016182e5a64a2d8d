"""Keys: what the nodes of one broker have in common that nobody else knows."""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import scrypt

from ssepool.config import HubConfig
from ssepool.urls import password_of

SCRYPT_ROUNDS = 2**14
"""How much a guess costs (RFC 7914, N): some 50 ms and 16 MiB. Every client has a token to compare a guess with."""


def message_key(config: HubConfig) -> bytes:
    """The key by which nodes believe each other's messages.

    It is made of `cluster_key`, else of the password in the broker's URL, which whoever may write there knows. Without
    either it is no secret: then whoever reaches the broker is believed.
    """
    return _derived(_secret(config), b"messages")


def token_key(config: HubConfig) -> bytes | None:
    """The key of the connections' tokens that all nodes know; None where there is no secret that they share, for a key
    that can be guessed would let any client make the token of another one."""
    secret = _secret(config)
    return _derived(secret, b"tokens") if secret else None


def _secret(config: HubConfig) -> str:
    return config.cluster_key or password_of(config.broker)


def _derived(secret: str, purpose: bytes) -> bytes:
    """A key for one purpose, from which neither the secret nor the key for another purpose can be found."""
    return hmac.digest(_stretched(secret) if secret else b"", purpose, "sha256")


@lru_cache(maxsize=8)
def _stretched(secret: str) -> bytes:
    return scrypt(secret.encode("utf-8", "surrogatepass"), salt=b"ssepool", n=SCRYPT_ROUNDS, r=8, p=1, dklen=32)
