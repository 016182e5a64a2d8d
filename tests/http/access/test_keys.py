"""Keys: the forms in which they come, and those that are too weak or do not go with their algorithm."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from minting import PRIVATE_KEYS, SECRET, jwk, part, private_pem, public_pem
from ssepool import ConfigError
from ssepool.http.access.keys import Key, read_keys, thumbprint

ENCODED_SECRET = part(SECRET)


def only(text: bytes | str | dict[str, Any]) -> Key:
    raw = json.dumps(text).encode() if isinstance(text, dict) else text if isinstance(text, bytes) else text.encode()
    [key] = read_keys(raw, "the file")
    return key


@pytest.mark.parametrize(
    ("text", "algorithm", "may_sign"),
    [
        (SECRET, "HS256", True),
        (SECRET + "\r\n", "HS256", True),
        ({"kty": "oct", "k": ENCODED_SECRET}, "HS256", True),
        ({"kty": "oct", "k": ENCODED_SECRET, "alg": "HS256"}, "HS256", True),
        (public_pem(PRIVATE_KEYS["RS256"]), "RS256", False),
        (private_pem(PRIVATE_KEYS["RS256"]), "RS256", True),
        (public_pem(PRIVATE_KEYS["ES256"]), "ES256", False),
        (private_pem(PRIVATE_KEYS["EdDSA"]), "EdDSA", True),
        (jwk("RS256"), "RS256", False),
        (jwk("RS256", alg="PS256"), "PS256", False),
        (jwk("ES256", alg="ES256", use="sig", key_ops=["verify"]), "ES256", False),
        (jwk("EdDSA"), "EdDSA", False),
        ({"keys": [jwk("EdDSA")]}, "EdDSA", False),
        ({"keys": [jwk("RS256", use="enc"), jwk("ES256", key_ops=["deriveKey"]), jwk("EdDSA")]}, "EdDSA", False),
    ],
)
def test_a_key_has_one_algorithm(text: Any, algorithm: str, may_sign: bool) -> None:
    key = only(text)
    assert (key.algorithm, key.may_sign) == (algorithm, may_sign)
    if may_sign:
        assert key.signs(b"text", key.sign(b"text"))
    assert not key.signs(b"text", b"nonsense")


def test_a_key_is_named_by_its_issuer_or_by_what_it_is() -> None:
    assert (only(jwk("RS256", kid="k1")).id, only(jwk("RS256", kid="k1")).is_named) == ("k1", True)
    named = only(public_pem(PRIVATE_KEYS["RS256"]))
    assert (named.id, named.is_named) == (only(private_pem(PRIVATE_KEYS["RS256"])).id, False)
    assert only(SECRET).id == only({"kty": "oct", "k": ENCODED_SECRET}).id
    assert SECRET not in repr(only(SECRET))


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    key = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a secret of 0 bytes"),
        ("x" * 31, "a secret of 31 bytes"),
        ({"kty": "oct", "k": part("x" * 31)}, "a secret of 31 bytes"),
        ({"kty": "oct", "k": ENCODED_SECRET, "alg": "RS256"}, "does not go with RS256"),
        ({"kty": "oct", "k": ENCODED_SECRET, "alg": "HS512"}, "alg 'HS512'"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), "secp384r1"),
        (public_pem(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
        (public_pem(ed448.Ed448PrivateKey.generate()), "of this kind"),
        (jwk("RS256", alg="ES256"), "does not go with ES256"),
        (jwk("ES256", alg="RS256"), "does not go with RS256"),
        (jwk("RS256", alg="none"), "alg 'none'"),
        (jwk("RS256", kid=7), "kid 7"),
        (jwk("RS256", n="!"), "cannot be read"),
        ({"kty": "RSA"}, "cannot be read"),
        ({"kty": "AKP"}, "kty 'AKP'"),
        ({"kty": ["oct"]}, "kty"),
        ({"keys": []}, "no key to check tokens with"),
        ({"keys": [jwk("RS256", use="enc")]}, "no key to check tokens with"),
        ({"keys": "a"}, "no JWK"),
        ({}, "no JWK"),
        ("{", "no JWK"),
        ('{"a":' + "[" * 60_000, "no JWK"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read as a key in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "cannot be read as a key in PEM"),
        (
            PRIVATE_KEYS["ES256"].private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"password"),
            ),
            "without a password",
        ),
        (
            PRIVATE_KEYS["RS256"]
            .public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
            "HMAC",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_weak_key_or_what_is_none_is_refused(text: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        only(text)
    assert "the file" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("text", [b"", b"a.b", b"x" * 4096])
def test_a_secret_signs_as_hmac_does_however_often(text: bytes) -> None:
    key = only(SECRET)
    for _ in range(2):
        signature = key.sign(text)
        assert signature == hmac.digest(SECRET.encode(), text, "sha256")
        assert key.signs(text, signature)
        for wrong in (b"", signature[:-1], signature + b"x", bytes(32)):
            assert not key.signs(text, wrong)
        assert not key.signs(text + b"x", signature)
