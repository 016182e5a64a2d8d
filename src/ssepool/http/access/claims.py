"""Claims: what a token says, and the grant that it makes. What it grants stands in `authorization_details` (RFC 9396),
in the form of the Mercure protocol, 1.0."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ssepool.core.grant import Grant
from ssepool.core.rights import ALL, Right, Rights
from ssepool.errors import InvalidGrant

TOPICS_TYPE = "https://mercure.rocks/authorization-detail"
"""The type of a detail that grants topics: `{"type": ..., "actions": ["subscribe", "publish"], "topics": [{"match":
"orders/:id", "match_type": "urlpattern"}], "payload": {...}}`."""
OWN_TYPE = "ssepool"
"""The type of a detail with what only a hub like this knows: `{"type": "ssepool", "admin": ["metrics"],
"publish_parts": ["id"]}`, in the words of `Grant`."""

MAX_DETAILS = 1024
"""Different claims `authorization_details` that are remembered for tokens to come."""

Time = Annotated[int, Meta(ge=0, le=10**12)]
"""Seconds since the epoch: a whole number, which RFC 7519 does not ask for. One of 400 digits would break a clock."""
Name = Annotated[str, Meta(min_length=1, max_length=256)]
"""Text that names somebody or something."""


class Issuer(msgspec.Struct):
    """Who a token says that it is from: with several of them this chooses the keys that it is checked with."""

    iss: str
    """Who issued it, as it says."""


class Claims(msgspec.Struct, omit_defaults=True):
    """The claims of a token that count here (RFC 9068, 2.2). Others are passed over."""

    iss: Name
    """Who issued it."""
    aud: str | list[str]
    """Whom it is for."""
    exp: Time
    """When it ends."""
    iat: Time | UnsetType = UNSET
    """When it was issued."""
    nbf: Time | UnsetType = UNSET
    """Before when it does not count."""
    sub: Name | UnsetType = UNSET
    """Who holds it."""
    jti: Name | UnsetType = UNSET
    """Names this token."""
    client_id: Any = UNSET
    """The program that asked for it, which RFC 9068 wants to be there."""
    authorization_details: msgspec.Raw = msgspec.Raw(b"[]")
    """What it grants."""


class _Typed(msgspec.Struct):
    type: str


class _Topics(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    actions: Annotated[list[str], Meta(min_length=1)]
    topics: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    payload: msgspec.Raw | UnsetType = UNSET


class _Own(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    admin: list[str] = []
    publish_parts: list[str] = []


class _Granted(NamedTuple):
    rights: Grant
    payload: bytes | None


def grant_of(claims: Claims) -> Grant:
    """The grant of a token with these claims.

    One detail of a type that is known here and not well formed refuses the whole; other types, and unknown actions,
    grant nothing. Raises `InvalidGrant`.
    """
    granted = _remembered(bytes(claims.authorization_details))
    if isinstance(granted, str):
        raise InvalidGrant(granted)
    return granted.rights.held_by(
        None if claims.sub is UNSET else claims.sub,
        claims.iss,
        data=None if granted.payload is None else msgspec.json.decode(granted.payload),
        expires_at=claims.exp,
        issued_at=None if claims.iat is UNSET else claims.iat,
        token_id=None if claims.jti is UNSET else claims.jti,
    )


@lru_cache(MAX_DETAILS)
def _remembered(details: bytes) -> _Granted | str:
    """What these details grant, or why they grant nothing. Tokens that grant the same share it, and with it the
    patterns once compiled; and one with a bad pattern, whose issuer is a known one, has it compiled once."""
    try:
        return _read(details)
    except (InvalidGrant, msgspec.DecodeError, RecursionError) as error:
        return str(error)


def _read(details: bytes) -> _Granted:
    subscribe: list[Right] = []
    publish: list[Right] = []
    admin: list[Any] = []
    parts: list[Any] = []
    payload: bytes | None = None
    for detail in msgspec.json.decode(details, type=list[msgspec.Raw]):
        kind = msgspec.json.decode(detail, type=_Typed).type
        if kind == TOPICS_TYPE:
            topics = msgspec.json.decode(detail, type=_Topics)
            rights = [_right(entry) for entry in topics.topics]
            if "publish" in topics.actions:
                publish += rights
            if topics.payload is not UNSET:
                msgspec.json.decode(topics.payload, type=dict[str, Any])
            if "subscribe" in topics.actions:
                subscribe += rights
                if payload is None and topics.payload is not UNSET:
                    payload = bytes(topics.payload)
            elif "publish" not in topics.actions:
                Rights(*rights)  # grants nothing, and is to be well formed all the same
        elif kind == OWN_TYPE:
            own = msgspec.json.decode(detail, type=_Own)
            admin += own.admin
            parts += own.publish_parts
    return _Granted(Grant(subscribe=subscribe, publish=publish, admin=admin, publish_parts=parts), payload)


def _right(entry: dict[str, Any]) -> Right:
    right = Right.of(entry)
    return Right(ALL) if right.match == ALL else right  # of whichever type: Mercure, "Matcher Types"


def details_of(grant: Grant) -> msgspec.Raw:
    """The claim `authorization_details` of a token for this grant. Raises `InvalidGrant` for data that is no JSON."""
    found: list[dict[str, Any]] = []
    payload = {} if grant.data is None else {"payload": grant.data}
    for action, rights, extra in (("subscribe", grant.subscribe, payload), ("publish", grant.publish, {})):
        if rights:
            found.append({"type": TOPICS_TYPE, "actions": [action], "topics": [_entry(r) for r in rights], **extra})
    own = {"admin": sorted(grant.admin), "publish_parts": sorted(grant.publish_parts)}
    if any(own.values()):
        found.append({"type": OWN_TYPE, **{name: parts for name, parts in own.items() if parts}})
    try:
        return msgspec.Raw(msgspec.json.encode(found))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidGrant(f"data is not allowed: {error}") from None


def _entry(right: Right) -> dict[str, str]:
    kind = {} if right.match_type == "exact" else {"match_type": right.match_type}
    return {"match": right.match, **kind}
