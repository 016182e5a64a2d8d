"""Claims: what a token says, and the grant that it makes. What it grants stands in `authorization_details` (RFC 9396),
in the form of the Mercure protocol, 1.0."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ssepool.core.grant import Grant
from ssepool.core.rights import ALL, Right, Rights
from ssepool.core.topics import shown
from ssepool.errors import InvalidGrant

TOPICS_TYPE = "https://mercure.rocks/authorization-detail"
"""The type of a detail that grants topics: `{"type": ..., "actions": ["subscribe", "publish"], "topics": [{"match":
"orders/:id", "match_type": "urlpattern"}], "payload": {...}}`."""
OWN_TYPE = "ssepool"
"""The type of a detail with what only a hub like this knows: `{"type": "ssepool", "admin": ["metrics"],
"publish_parts": ["id"]}`, in the words of `Grant`."""

Time = Annotated[int, Meta(ge=0, le=10**12)]
"""Seconds since the epoch: a whole number, which RFC 7519 does not ask for. One of 400 digits would break a clock."""
Name = Annotated[str, Meta(min_length=1, max_length=256)]
"""Text that names somebody or something."""


class Issuer(msgspec.Struct):
    """Who a token says that it is from: with several of them this chooses the keys that it is checked with."""

    iss: str


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
    authorization_details: list[dict[str, Any]] = []
    """What it grants."""


class _Topics(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    actions: Annotated[list[str], Meta(min_length=1)]
    topics: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    payload: dict[str, Any] | UnsetType = UNSET


class _Own(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    admin: list[str] = []
    publish_parts: list[str] = []


def grant_of(claims: Claims) -> Grant:
    """The grant of a token with these claims.

    One detail of a type that is known here and not well formed refuses the whole; other types, and unknown actions,
    grant nothing. Raises `InvalidGrant` or `msgspec.ValidationError`.
    """
    subscribe: list[Right] = []
    publish: list[Right] = []
    admin: list[Any] = []
    publish_parts: list[Any] = []
    data: Any = None
    for detail in claims.authorization_details:
        kind = detail.get("type")
        if kind == TOPICS_TYPE:
            topics = msgspec.convert(detail, _Topics)
            rights = [_right(entry) for entry in topics.topics]
            if "publish" in topics.actions:
                publish += rights
            if "subscribe" in topics.actions:
                subscribe += rights
                if data is None and topics.payload is not UNSET:
                    data = topics.payload
            elif "publish" not in topics.actions:
                Rights(*rights)  # grants nothing, and is to be well formed all the same
        elif kind == OWN_TYPE:
            own = msgspec.convert(detail, _Own)
            admin += own.admin
            publish_parts += own.publish_parts
        elif not isinstance(kind, str):
            raise InvalidGrant(f"detail {shown(detail)} has no type (RFC 9396, 2)")
    return Grant(
        subject=claims.sub or None,
        issuer=claims.iss,
        subscribe=subscribe,
        publish=publish,
        publish_parts=publish_parts,
        admin=admin,
        data=data,
        expires_at=claims.exp,
        issued_at=None if claims.iat is UNSET else claims.iat,
        token_id=claims.jti or None,
    )


def _right(entry: dict[str, Any]) -> Right:
    right = Right.of(entry)
    return Right(ALL) if right.match == ALL else right  # of whichever type: Mercure, "Matcher Types"


def details_of(grant: Grant) -> list[dict[str, Any]]:
    """The claim `authorization_details` of a token for this grant."""
    found: list[dict[str, Any]] = []
    payload = {} if grant.data is None else {"payload": grant.data}
    for action, rights, extra in (("subscribe", grant.subscribe, payload), ("publish", grant.publish, {})):
        if rights:
            found.append({"type": TOPICS_TYPE, "actions": [action], "topics": [_entry(r) for r in rights], **extra})
    own = {"admin": sorted(grant.admin), "publish_parts": sorted(grant.publish_parts)}
    if any(own.values()):
        found.append({"type": OWN_TYPE, **{name: parts for name, parts in own.items() if parts}})
    return found


def _entry(right: Right) -> dict[str, str]:
    kind = {} if right.match_type == "exact" else {"match_type": right.match_type}
    return {"match": right.match, **kind}
