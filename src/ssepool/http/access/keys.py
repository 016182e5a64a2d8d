"""Keys: what tokens are signed and checked with. Each key has one algorithm, and a weak one is refused.

PyJWT is imported when the first key is read: who has no tokens does not wait for it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ssepool.errors import ConfigError

ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "EdDSA")
"""The algorithms of tokens (RFC 7518, 3.1; RFC 8037, 3.1)."""
MIN_SECRET_BYTES = 32
"""Bytes of a secret of HS256 at least (RFC 7518, 3.2)."""
MIN_RSA_BITS = 2048
"""Bits of an RSA key at least (RFC 7518, 3.3)."""
MAX_RSA_BITS = 4096
"""Bits of an RSA key at most: a check with 8192 bits takes four times as long."""
MAX_KID_CHARACTERS = 256
"""Characters of a key's id at most."""

_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""The members that a key's thumbprint is made of (RFC 7638, 3.2; RFC 8037, 2)."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key with its one algorithm."""

    id: str
    """Names it in a token's header (`kid`)."""
    algorithm: str
    """One of `ALGORITHMS`."""
    is_named: bool
    """Whether its issuer gave it the id; else that is made of the key itself."""
    material: str
    """The same for the same key, whatever its id."""
    _method: Any = field(repr=False)
    _public: Any = field(repr=False)
    _private: Any = field(repr=False, default=None)

    @property
    def may_sign(self) -> bool:
        """Whether tokens can be signed with it."""
        return self._private is not None

    def signs(self, text: bytes, signature: bytes) -> bool:
        """Whether this is the key's signature of the text."""
        try:
            return bool(self._method.verify(text, self._public, signature))
        except ValueError:
            return False

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, by a key that `may_sign`."""
        signature: bytes = self._method.sign(text, self._private)
        return signature


class _HS256:
    """HMAC with one secret, which is taken in once: PyJWT takes it in anew for each token, a third of the time."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(secret, digestmod="sha256")

    def sign(self, text: bytes, _: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(text)
        return keyed.digest()

    def verify(self, text: bytes, secret: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(text, secret), signature)


def read_keys(text: bytes, where: str) -> list[Key]:
    """The keys of a file or a variable: a public or private key as PEM, a JWK or a JWK Set (RFC 7517), else a secret
    of HS256. `where` is named in errors. Raises `ConfigError`."""
    text = text.strip()
    if text.startswith(b"{"):
        keys = [key for entry in jwks_of(text, where) if (key := key_of(entry, where)) is not None]
        if not keys:
            raise ConfigError(f"{where} has no key to check tokens with")
        return keys
    if text.startswith(b"-----BEGIN "):
        return [_made(_load_pem(text, where), where)]
    return [_secret(text, where)]


def jwks_of(text: bytes, where: str) -> list[dict[str, Any]]:
    """The entries of a JWK Set, or a JWK alone. Raises `ConfigError`."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
        return msgspec.convert(found["keys"], list[dict[str, Any]]) if "kty" not in found else [found]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ConfigError(f"{where} is no JWK and no JWK Set: {error}") from None


def key_of(jwk: dict[str, Any], where: str) -> Key | None:
    """The key of a JWK; None if it is for something else than signatures. Raises `ConfigError`."""
    if jwk.get("use", "sig") != "sig" or not {"sign", "verify"} & set(_strings(jwk.get("key_ops", ["verify"]))):
        return None
    algorithm, kid = jwk.get("alg"), jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARACTERS):
        raise ConfigError(f"{where}: kid {kid!r:.80} is not allowed; it takes 1 to {MAX_KID_CHARACTERS} characters")
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ConfigError(f"{where}: alg {algorithm!r:.80} is not allowed; there are {', '.join(ALGORITHMS)}")
    import jwt.algorithms as methods

    kinds: dict[Any, Any] = {
        "oct": methods.HMACAlgorithm,
        "RSA": methods.RSAAlgorithm,
        "EC": methods.ECAlgorithm,
        "OKP": methods.OKPAlgorithm,
    }
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}: kty {kind!r:.80} is not allowed; there are {', '.join(kinds)}")
    try:
        raw = kinds[kind].from_jwk(jwk)
    except Exception as error:  # whatever a library says of a key that it cannot read
        raise ConfigError(f"{where}: a key of kty {kind} cannot be read: {type(error).__name__}") from None
    return _secret(raw, where, algorithm, kid) if kind == "oct" else _made(raw, where, algorithm, kid)


def _strings(entries: Any) -> list[str]:
    return [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []


def _load_pem(text: bytes, where: str) -> Any:
    from cryptography.hazmat.primitives import serialization

    try:
        if b"PRIVATE KEY" in text.partition(b"\n")[0]:
            return serialization.load_pem_private_key(text, password=None)
        return serialization.load_pem_public_key(text)
    except Exception as error:  # there are many kinds of them
        raise ConfigError(
            f"{where} cannot be read as a key in PEM: {error}; it takes PUBLIC KEY, or PRIVATE KEY without a password"
        ) from None


def _secret(secret: bytes, where: str, algorithm: str | None = None, kid: str | None = None) -> Key:
    from jwt.algorithms import HMACAlgorithm
    from jwt.exceptions import InvalidKeyError

    if algorithm not in (None, "HS256"):
        raise ConfigError(f"{where}: a secret does not go with {algorithm}; it takes HS256")
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{where}: a secret of {len(secret)} bytes is not allowed; it takes {MIN_SECRET_BYTES} bytes")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)  # refuses public keys, which others know
    except InvalidKeyError as error:
        raise ConfigError(f"{where}: {error}") from None
    material = hmac.digest(secret, b"the id of this key", "sha256").hex()
    return Key(kid or material[:16], "HS256", kid is not None, material, _HS256(secret), secret, secret)


def _made(raw: Any, where: str, algorithm: str | None = None, kid: str | None = None) -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from jwt.algorithms import get_default_algorithms

    private = raw if hasattr(raw, "public_key") else None
    public = raw if private is None else private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        fitting: tuple[str, ...] = ("RS256", "PS256")
        if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            raise ConfigError(
                f"{where}: an RSA key of {public.key_size} bits is not allowed; it takes {MIN_RSA_BITS} to "
                f"{MAX_RSA_BITS}"
            )
    elif isinstance(public, ec.EllipticCurvePublicKey):
        fitting = ("ES256",)
        if not isinstance(public.curve, ec.SECP256R1):
            raise ConfigError(f"{where}: the curve {public.curve.name} is not allowed; it takes P-256, or Ed25519")
    elif isinstance(public, ed25519.Ed25519PublicKey):
        fitting = ("EdDSA",)
    else:
        raise ConfigError(f"{where}: a key of this kind is not allowed; it takes RSA, P-256 or Ed25519")
    if algorithm not in (None, *fitting):
        raise ConfigError(f"{where}: this key does not go with {algorithm}; it takes {' or '.join(fitting)}")
    method: Any = get_default_algorithms()[algorithm or fitting[0]]
    jwk = method.to_jwk(public, as_dict=True)
    material = thumbprint(jwk)
    return Key(kid or material, algorithm or fitting[0], kid is not None, material, method, public, private)


def thumbprint(jwk: dict[str, Any]) -> str:
    """The thumbprint of a public key (RFC 7638)."""
    members = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    return urlsafe_b64encode(hashlib.sha256(msgspec.json.encode(members)).digest()).rstrip(b"=").decode()
