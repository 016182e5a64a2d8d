"""Tokens: grants from JWT access tokens (RFC 9068, RFC 8725), and tokens from grants."""

from __future__ import annotations

import binascii
import hashlib
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ssepool.config import KiB
from ssepool.core.grant import AdminPart, Grant, OwnRights, PublishPart
from ssepool.core.rights import NOTHING
from ssepool.errors import ConfigError, InvalidGrant, TokenExpired, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.claims import Claims, Issuer, details_of, grant_of
from ssepool.http.access.door import RECENT_SECONDS
from ssepool.http.access.keys import ALGORITHMS, MAX_KID_CHARACTERS
from ssepool.http.access.ring import KeyRing

MAX_TOKEN_BYTES = 4 * KiB
"""Bytes of a token at most; of a longer one nothing is looked at."""
TOKEN_TYPE = "at+jwt"
"""The type of a token's header (RFC 9068, 2.1): a token that was issued for something else does not count here."""
SKEW_SECONDS = 30.0
"""Seconds that an issuer's clock may be ahead of ours."""
MAX_CACHED = 10_000
"""Tokens that are remembered at least; see `Tokens`."""
MAX_HEADERS = 256
"""Headers of tokens that are remembered: all tokens of a key have the same."""
EXPIRES_SECONDS = 3600.0
"""Seconds after which a token ends, unless its issuer says otherwise."""

_STANDARD = bytes.maketrans(b"-_+/=", b"+/...")
"""Base64url as base64 (RFC 4648, 5); what only the latter has becomes no letter at all."""
_PADDING = (b"", b"===", b"==", b"=")
_REFUSED = "the credentials do not count here"


class _Header(msgspec.Struct):
    """Where a header says where its key is to be found (`jku`, `jwk`, `x5u`, `x5c`), nobody looks."""

    alg: str
    typ: str
    kid: Annotated[str, Meta(max_length=MAX_KID_CHARACTERS)] | UnsetType = UNSET
    cty: Any = UNSET
    crit: Any = UNSET
    b64: Any = UNSET


class Fault(Exception):
    """Why a token does not count: for whoever runs the hub, never for who presented it."""


_HEADER = msgspec.json.Decoder(_Header)
_ISSUER = msgspec.json.Decoder(Issuer)
_CLAIMS = msgspec.json.Decoder(Claims)


class Tokens:
    """A source of grants: the token of a request. And what issues tokens.

    Good tokens are remembered by their SHA-256, so that a storm of clients that come back has no signature checked.
    Those least recently seen are forgotten first; what does not count is never remembered.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        audience: str,
        max_age: float,
        wall_clock: Callable[[], float],
        max_cached: int = MAX_CACHED,
    ) -> None:
        """`ring` has the keys, `audience` is this hub's name in tokens, `max_age` how many seconds ahead a token may
        end at most, `wall_clock` the seconds since the epoch. `max_cached` tokens are remembered."""
        self.ring = ring
        """The keys."""
        self._audience = audience
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._max_cached = max_cached
        self._grants: dict[bytes, Grant] = {}
        self._version = ring.version
        self._sole = next(iter(ring.issuers)) if len(ring.issuers) == 1 else None

    # A source of grants.

    def at_once(self, asking: Asking) -> Grant | None:
        """See `Source`. None if what the request presents is no JWT: it may be for another source. Raises
        `Unauthorized`, which tells nothing, and `TokenExpired`."""
        shown = asking.presented
        if shown is None or shown.token is None or shown.token.count(".") != 2:
            return None
        try:
            return self.read(shown.token)
        except Fault:
            raise Unauthorized(_REFUSED, presented=True) from None

    async def in_time(self, asking: Asking) -> Grant | None:
        """See `Source`."""
        return self.at_once(asking)

    def read(self, token: str) -> Grant:
        """The grant of a token. Raises `Fault`, and `TokenExpired` if its only fault is that it ended just now."""
        if len(token) > MAX_TOKEN_BYTES:
            raise Fault(f"it has {len(token)} characters; it takes {MAX_TOKEN_BYTES} at most")
        if self._version != self.ring.version:
            self._version = self.ring.version
            self._grants.clear()  # by keys that may be gone
        raw = token.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(raw).digest()
        grant = self._grants.pop(digest, None) or self._examined(raw)
        now = self._wall_clock()
        ended = now - (grant.expires_at or 0)
        if ended >= RECENT_SECONDS:
            raise Fault(f"it ended {ended:.0f} s ago")
        if len(self._grants) >= self._max_cached:
            del self._grants[next(iter(self._grants))]
        self._grants[digest] = grant  # behind all others: it was seen last
        if ended >= 0:
            raise TokenExpired("the token has expired", presented=True)
        return grant

    def _examined(self, token: bytes) -> Grant:
        if token.count(b".") != 2:
            raise Fault("it is not three parts in base64url")
        signed, _, signature = token.rpartition(b".")
        head, _, body = signed.partition(b".")
        try:
            header = _header(head)
            payload = _decoded(body)
            issuer = self._sole or _ISSUER.decode(payload).iss
            self._check_signature(header, issuer, signed, _decoded(signature))
            claims = _CLAIMS.decode(payload)
            self._check_claims(claims, issuer)
            return grant_of(claims)
        except (msgspec.DecodeError, InvalidGrant, RecursionError, ValueError) as error:
            raise Fault(f"it is not well formed: {error}") from None

    def _check_signature(self, header: _Header, issuer: str, signed: bytes, signature: bytes) -> None:
        keys = self.ring.find(issuer, None if header.kid is UNSET else header.kid, header.alg)
        if not keys:
            raise Fault(f"there is no key of issuer {issuer!r:.80} for its kid and its alg {header.alg}")
        for key in keys:
            if key.signs(signed, signature):
                return
        raise Fault("its signature is wrong")

    def _check_claims(self, claims: Claims, issuer: str) -> None:
        """See RFC 9068, 4."""
        now = self._wall_clock()
        if claims.iss != issuer:
            raise Fault(f"its issuer is {claims.iss!r:.80}; it takes {issuer!r}")
        if self._audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
            raise Fault(f"it is for {claims.aud!r:.80}; it takes {self._audience!r}")
        if claims.exp > now + self._max_age + SKEW_SECONDS:
            raise Fault(f"it ends in {claims.exp - now:.0f} s; it takes max_token_age = {self._max_age:g} at most")
        soon = now + SKEW_SECONDS
        if claims.nbf is not UNSET and claims.nbf > soon:
            raise Fault(f"its nbf is {claims.nbf - now:.0f} s ahead")
        if claims.iat is not UNSET and claims.iat > soon:
            raise Fault(f"its iat is {claims.iat - now:.0f} s ahead")

    # Issuing.

    def issue(
        self,
        *,
        subject: str,
        subscribe: OwnRights = NOTHING,
        publish: OwnRights = NOTHING,
        publish_parts: Iterable[PublishPart] = (),
        admin: Iterable[AdminPart] = (),
        data: dict[str, Any] | None = None,
        expires_in: float = EXPIRES_SECONDS,
        token_id: str | None = None,
        issuer: str | None = None,
    ) -> str:
        """A token for `subject`, signed with the first secret or private key of the issuer in `token_keys`.

        The rights are those of `Grant`; `data` goes with rights to subscribe. It ends after `expires_in` seconds.
        `issuer` may be left out where there is one. Raises `InvalidGrant` for rights that are not well formed, and for
        more than a token takes, and `ConfigError` if there is nothing to sign with.
        """
        issuer = issuer or self._sole
        if issuer is None:
            raise ConfigError(f"there are several issuers: issuer takes one of {', '.join(sorted(self.ring.issuers))}")
        if not 0 < expires_in <= self._max_age:
            raise InvalidGrant(
                f"expires_in = {expires_in!r} is not allowed; it takes more than 0, {self._max_age:g} "
                "(max_token_age) at most"
            )
        grant = Grant(
            subject=subject,
            issuer=issuer,
            subscribe=subscribe,
            publish=publish,
            publish_parts=publish_parts,
            admin=admin,
            data=data,
            token_id=token_id or uuid.uuid4().hex,
        )
        if data is not None and not (isinstance(data, dict) and grant.subscribe):
            raise InvalidGrant("data is not allowed so: it takes a JSON object, and a right to subscribe")
        return self._signed(issuer, self._claims(grant, issuer, max(1, int(expires_in))))

    def _claims(self, grant: Grant, issuer: str, seconds: int) -> Claims:
        """All that RFC 9068 wants to be there, 2.2."""
        now = int(self._wall_clock())
        return Claims(
            iss=issuer,
            aud=self._audience,
            exp=now + seconds,
            iat=now,
            sub=str(grant.subject),
            jti=str(grant.token_id),
            client_id=issuer,
            authorization_details=details_of(grant),
        )

    def _signed(self, issuer: str, claims: Claims) -> str:
        key = self.ring.signing(issuer)
        header = {"alg": key.algorithm, "typ": TOKEN_TYPE, "kid": key.id}
        text = b".".join(_encoded(msgspec.json.encode(part)) for part in (header, claims))
        token = b".".join((text, _encoded(key.sign(text)))).decode()
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidGrant(f"a token of {len(token)} bytes is not allowed; it takes {MAX_TOKEN_BYTES}: grant less")
        return token


@lru_cache(MAX_HEADERS)
def _header(head: bytes) -> _Header:
    """The header of a token. See RFC 8725: 3.1 and 3.11, RFC 7515: 4.1.9 and 4.1.11. Raises `Fault`."""
    header = _HEADER.decode(_decoded(head))
    if header.typ.lower().removeprefix("application/") != TOKEN_TYPE:
        raise Fault(f"its typ is {header.typ!r:.40}; it takes {TOKEN_TYPE}")
    if header.crit is not UNSET or header.b64 is not UNSET or header.cty is not UNSET:
        raise Fault("its header has crit, b64 or cty, which nothing here understands")
    if header.alg not in ALGORITHMS:
        raise Fault(f"its alg is {header.alg!r:.40}; there are {', '.join(ALGORITHMS)}")
    return header


def _decoded(part: bytes) -> bytes:
    try:
        return binascii.a2b_base64(part.translate(_STANDARD) + _PADDING[len(part) % 4], strict_mode=True)
    except binascii.Error as error:
        raise Fault(f"it is not three parts in base64url: {error}") from None


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
