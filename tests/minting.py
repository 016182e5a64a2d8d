"""Tokens for tests, made with PyJWT's own `encode`: good ones, and one of each bad kind."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ssepool import AccessConfig

SECRET = "0123456789abcdef" * 2
ISSUER, AUDIENCE = "https://id.example", "hub"
MERCURE = "https://mercure.rocks/authorization-detail"
ROOM = {"type": MERCURE, "actions": ["subscribe", "publish"], "topics": [{"match": "room"}]}
PRIVATE_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
PRIVATE_KEYS["PS256"] = PRIVATE_KEYS["RS256"]


def public_pem(key: Any) -> bytes:
    """The public half, as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem


def private_pem(key: Any) -> bytes:
    """The private key, as PEM."""
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, none)
    return pem


def jwk(algorithm: str, **fields: Any) -> dict[str, Any]:
    """The public key of an algorithm as a JWK."""
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE_KEYS[algorithm].public_key(), as_dict=True)
    return {**{name: value for name, value in found.items() if name != "key_ops"}, **fields}


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None leaves one out."""
    now = int(time.time())
    found = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 300,
        "iat": now,
        "sub": "u1",
        "jti": "t1",
        "authorization_details": [ROOM],
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def mint(key: Any = SECRET, algorithm: str = "HS256", header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token; the header is that of a good one, but for what `header` says."""
    return sign({"typ": "at+jwt", "alg": algorithm, **(header or {})}, json.dumps(claims(**changes)), key, algorithm)


def sign(header: dict[str, Any], payload: str, key: Any, algorithm: str) -> str:
    """Whatever this is, signed."""
    text = f"{part(json.dumps(header))}.{part(payload)}"
    method = jwt.get_algorithm_by_name(algorithm)
    signature = method.sign(text.encode(), method.prepare_key(key))
    return f"{text}.{part(signature)}"


def part(data: str | bytes) -> str:
    """One part of a token: base64url."""
    raw = data if isinstance(data, bytes) else data.encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Keys:
    """Files with the keys of a hub: a secret and an RSA key."""

    access: AccessConfig

    @classmethod
    def into(cls, folder: Path, **settings: Any) -> Keys:
        """Write the files."""
        (folder / "secret.txt").write_text(SECRET + "\n")
        (folder / "rsa.pem").write_bytes(public_pem(PRIVATE_KEYS["RS256"]))
        for path in folder.iterdir():
            path.chmod(0o600)
        places = (str(folder / "secret.txt"), str(folder / "rsa.pem"))
        return cls(AccessConfig(token_keys=places, token_issuers=(ISSUER,), token_audience=AUDIENCE, **settings))


def hmac_with(key: bytes, text: str) -> str:
    """A token signed by HS256 with any bytes, which PyJWT would not do."""
    import hashlib
    import hmac

    return f"{text}.{part(hmac.digest(key, text.encode(), hashlib.sha256))}"


def _swapped() -> str:
    head = part('{"typ":"at+jwt","alg":"HS256"}')
    return hmac_with(public_pem(PRIVATE_KEYS["RS256"]), f"{head}.{part(json.dumps(claims()))}")


def _details(*details: Any) -> Callable[[], str]:
    return lambda: mint(authorization_details=list(details))


def _inserted(signs: str) -> str:
    """A good token but for letters that a lenient reader would pass over."""
    token = mint()
    return f"{token[:-4]}{signs}{token[-4:]}"


def _raw_exp(text: str) -> Callable[[], str]:
    payload = json.dumps(claims(exp=123456)).replace("123456", text)
    return lambda: sign({"typ": "at+jwt", "alg": "HS256"}, payload, SECRET, "HS256")


NONE = part('{"typ":"at+jwt","alg":"none"}')
OTHER_RSA = rsa.generate_private_key(65537, 2048)
BAD: dict[str, Callable[[], str]] = {
    "forged": lambda: mint("x" * 32),
    "a signature that is cut": lambda: mint()[:-4],
    "a changed payload": lambda: ".".join([*mint().split(".")[:1], part(json.dumps(claims(sub="root"))), "c2ln"]),
    "expired long ago": lambda: mint(exp=int(time.time()) - 3600),
    "no signature": lambda: mint().rpartition(".")[0] + ".",
    "alg none": lambda: f"{NONE}.{part(json.dumps(claims()))}.",
    "alg none with something": lambda: f"{NONE}.{part(json.dumps(claims()))}.eA",
    "alg NonE": lambda: mint(header={"alg": "NonE"}),
    "HS256 with the public key": _swapped,
    "another RSA key": lambda: mint(OTHER_RSA, "RS256"),
    "PS256 with an RS256 key": lambda: mint(PRIVATE_KEYS["RS256"], "PS256"),
    "HS512": lambda: mint(SECRET * 2, "HS512"),
    "its own jwk": lambda: mint(OTHER_RSA, "RS256", {"jwk": jwk("RS256")}),
    "a jku": lambda: mint(OTHER_RSA, "RS256", {"jku": "https://127.0.0.1:1/keys"}),
    "crit": lambda: mint(header={"crit": ["exp"]}),
    "b64": lambda: mint(header={"b64": False}),
    "typ JWT": lambda: mint(header={"typ": "JWT"}),
    "no typ": lambda: mint(header={"typ": None}),
    "nested": lambda: sign({"typ": "at+jwt", "alg": "HS256", "cty": "JWT"}, mint(), SECRET, "HS256"),
    "nested without cty": lambda: sign({"typ": "at+jwt", "alg": "HS256"}, mint(), SECRET, "HS256"),
    "oversize": lambda: mint(filler="x" * 4096),
    "50 KB": lambda: mint(filler="x" * 50_000),
    "exp of 400 digits": _raw_exp("9" * 400),
    "exp as a string of digits": lambda: mint(exp="9" * 400),
    "exp as a fraction": _raw_exp(f"{time.time() + 300:.1f}"),
    "exp in scientific notation": _raw_exp("2e9"),
    "exp true": lambda: mint(exp=True),
    "exp null": _raw_exp("null"),
    "exp below zero": lambda: mint(exp=-1),
    "no exp": lambda: mint(exp=None),
    "exp in a year": lambda: mint(exp=int(time.time()) + 365 * 86_400),
    "nbf ahead": lambda: mint(nbf=int(time.time()) + 3600),
    "nbf as text": lambda: mint(nbf="0"),
    "iat ahead": lambda: mint(iat=int(time.time()) + 3600),
    "another issuer": lambda: mint(iss="https://evil.example"),
    "no issuer": lambda: mint(iss=None),
    "issuers": lambda: mint(iss=[ISSUER]),
    "another audience": lambda: mint(aud="other"),
    "other audiences": lambda: mint(aud=["other", "hub2"]),
    "no audience": lambda: mint(aud=None),
    "kid with a path": lambda: mint("x" * 32, header={"kid": "../../../../dev/null"}),
    "unknown kid": lambda: mint("x" * 32, header={"kid": "nobody"}),
    "kid as a list": lambda: mint(header={"kid": ["a"]}),
    "a long kid": lambda: mint(header={"kid": "k" * 1000}),
    "sub as a number": lambda: mint(sub=1),
    "details that are no list": lambda: mint(authorization_details={"type": MERCURE}),
    "a detail without type": _details({"actions": ["subscribe"]}),
    "a detail that is text": _details("subscribe"),
    "no topics": _details({"type": MERCURE, "actions": ["subscribe"]}),
    "empty topics": _details({"type": MERCURE, "actions": ["subscribe"], "topics": []}),
    "no actions": _details(ROOM, {"type": MERCURE, "topics": [{"match": "a"}]}),
    "a topic as text": _details(ROOM, {"type": MERCURE, "actions": ["subscribe"], "topics": ["a"]}),
    "an unknown match_type": _details(
        ROOM, {"type": MERCURE, "actions": ["subscribe"], "topics": [{"match": "a", "match_type": "regexp"}]}
    ),
    "a pattern that is none": _details(
        ROOM, {"type": MERCURE, "actions": ["subscribe"], "topics": [{"match": "a/{", "match_type": "urlpattern"}]}
    ),
    "a bad topic of no action": _details(ROOM, {"type": MERCURE, "actions": ["fly"], "topics": [{"match": ""}]}),
    "an action that is no text": _details({"type": MERCURE, "actions": [1], "topics": [{"match": "a"}]}),
    "a payload that is no object": _details({**ROOM, "payload": [1]}),
    "an unknown field": _details({**ROOM, "locations": ["https://other.example"]}),
    "an unknown part of administration": _details(ROOM, {"type": "ssepool", "admin": ["everything"]}),
    "an unknown field of ours": _details(ROOM, {"type": "ssepool", "kick": True}),
    "deep": lambda: sign({"typ": "at+jwt", "alg": "HS256"}, "[" * 2500, "x" * 32, "HS256"),
    "deep and signed": lambda: sign({"typ": "at+jwt", "alg": "HS256"}, "[" * 2500, SECRET, "HS256"),
    "a header that is no JSON": lambda: f"{part('{')}.e30.eA",
    "a header that is deep": lambda: f"{part('[' * 2500)}.e30.eA",
    "not UTF-8": lambda: f"{part(bytes([255, 254]))}.e30.eA",
    "not base64url": lambda: mint().replace(".", ".+", 1),
    "padding": lambda: mint() + "=",
    "letters of no alphabet in its signature": lambda: _inserted("!!!!"),
    "base64 in its signature": lambda: mint().replace("-", "+").replace("_", "/") + "+",
    "three empty parts": lambda: "..",
    "a lone character": lambda: "a.b.c",
}
"""One token of each kind that does not count. All are three parts, and each is refused alike."""
