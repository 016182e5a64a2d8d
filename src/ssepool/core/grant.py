"""Grant: who asks, and what they may do; and the effect of its rights on what a client subscribes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from ssepool.core.event import Event
from ssepool.core.rights import EVERYTHING, NOTHING, Right, Rights
from ssepool.core.topics import OWN_TOPICS, Pattern, Subscription, shown
from ssepool.errors import Forbidden, InvalidGrant

AdminPart = Literal["metrics", "connections", "kick", "pool", "audit"]
"""A part of administration: numbers and the hub's own topics; who is connected, which is personal data; sending clients
away and revoking; resizing and draining; the audit log."""
PublishPart = Literal["id", "retry", "public"]
"""What a publisher may decide beside data, type and topics: the event's own id, the time after which its readers
reconnect, and that whoever may read a public topic may read the event (`private: false`)."""

ADMIN_PARTS: tuple[str, ...] = get_args(AdminPart)
"""All parts of administration."""
PUBLISH_PARTS: tuple[str, ...] = get_args(PublishPart)
"""All that a publisher may decide beside."""

MAX_SUBJECT_CHARACTERS = 256
"""Characters of a subject, an issuer or a token's id at most."""

MAX_EFFECTS = 1024
"""Effects that are remembered, each of one topic under the rights of many grants."""

MAX_TIME = 1e12
"""Seconds since the epoch at most: some 30,000 years."""

OwnRights = Rights | Iterable[Right | str | Mapping[str, Any]]
"""The forms in which a grant takes rights: `["room:blue", {"match": "orders/:id", "match_type": "urlpattern"}]`."""


@dataclass(frozen=True, slots=True, init=False)
class Grant:
    """Who asks, and what they may do; unchangeable. `Grant(subject="u1", subscribe=["users/u1"], publish=["chat/1"])`.

    Without anything it grants nothing: its holder may read what is public.
    """

    subject: str | None
    """Who asks: the user, as the one who issued this names them."""
    issuer: str | None
    """Who says so; None for the application itself."""
    subscribe: Rights
    """The topics that they may read, private events among them."""
    publish: Rights
    """The topics that they may publish to. An event needs the right to each of its topics."""
    publish_parts: frozenset[PublishPart]
    """What they may decide about an event beside its data, type and topics."""
    admin: frozenset[AdminPart]
    """The parts of administration that they have."""
    data: Any
    """What the issuer vouches for; it is kept on the connection in the place of what the client says of itself."""
    expires_at: float | None
    """When all this ends, in seconds since the epoch; None if it does not say."""
    issued_at: float | None
    """When it was issued, in seconds since the epoch; None if it does not say."""
    token_id: str | None
    """Names the token that it comes from, so that it can be revoked."""

    def __init__(
        self,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        subscribe: OwnRights = NOTHING,
        publish: OwnRights = NOTHING,
        publish_parts: Iterable[PublishPart] = (),
        admin: Iterable[AdminPart] = (),
        data: Any = None,
        expires_at: float | None = None,
        issued_at: float | None = None,
        token_id: str | None = None,
    ) -> None:
        """See the attributes. One entry that is not well formed refuses the whole: raises `InvalidGrant`."""
        put = object.__setattr__
        put(self, "subject", _checked_name("subject", subject))
        put(self, "issuer", _checked_name("issuer", issuer))
        put(self, "subscribe", subscribe if isinstance(subscribe, Rights) else Rights(*_listed("subscribe", subscribe)))
        put(self, "publish", publish if isinstance(publish, Rights) else Rights(*_listed("publish", publish)))
        put(self, "publish_parts", _parts("publish_parts", publish_parts, PUBLISH_PARTS))
        put(self, "admin", _parts("admin", admin, ADMIN_PARTS))
        put(self, "data", data)
        put(self, "expires_at", _checked_time("expires_at", expires_at))
        put(self, "issued_at", _checked_time("issued_at", issued_at))
        put(self, "token_id", _checked_name("token_id", token_id))

    def held_by(
        self,
        subject: str | None,
        issuer: str | None,
        *,
        data: Any,
        expires_at: float | None,
        issued_at: float | None,
        token_id: str | None,
    ) -> Grant:
        """The same rights for somebody else, whose values have been checked: half the work where thousands come."""
        made, put = object.__new__(Grant), object.__setattr__
        put(made, "subject", subject)
        put(made, "issuer", issuer)
        put(made, "subscribe", self.subscribe)
        put(made, "publish", self.publish)
        put(made, "publish_parts", self.publish_parts)
        put(made, "admin", self.admin)
        put(made, "data", data)
        put(made, "expires_at", expires_at)
        put(made, "issued_at", issued_at)
        put(made, "token_id", token_id)
        return made

    def may_administer(self, part: AdminPart) -> bool:
        """Whether this part of administration is granted."""
        return part in self.admin

    def asked(self, time: float) -> Grant:
        """This grant as it was given to who asked at that time, in seconds since the epoch: one that names somebody and
        does not say when it was issued counts as issued then."""
        if self.issued_at is not None or (self.subject is None and self.token_id is None):
            return self
        return self.held_by(
            self.subject,
            self.issuer,
            data=self.data,
            expires_at=self.expires_at,
            issued_at=time,
            token_id=self.token_id,
        )

    def __repr__(self) -> str:
        """Who, and until when: the rest may be personal."""
        return f"<Grant subject={self.subject!r} issuer={self.issuer!r} expires_at={self.expires_at}>"


def _checked_name(what: str, name: Any) -> Any:
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= MAX_SUBJECT_CHARACTERS):
        raise InvalidGrant(f"{what} {shown(name)} is not allowed: it takes 1 to {MAX_SUBJECT_CHARACTERS} characters")
    return name


def _checked_time(what: str, time: Any) -> Any:
    if time is None or (isinstance(time, int | float) and not isinstance(time, bool) and abs(time) < MAX_TIME):
        return time
    raise InvalidGrant(f"{what} {shown(time)} is not allowed: it takes seconds since the epoch")


def _listed(what: str, entries: Any) -> list[Any]:
    if type(entries) in (tuple, list, frozenset):  # `Iterable` takes a microsecond to ask for
        return list(entries)
    if isinstance(entries, str | bytes | Mapping) or not isinstance(entries, Iterable):
        raise InvalidGrant(f"{what} {shown(entries)} is not allowed: it takes a list")
    return list(entries)


def _parts(what: str, given: Any, allowed: tuple[str, ...]) -> frozenset[Any]:
    if given == ():
        return frozenset()
    found = _listed(what, given)
    for part in found:
        if part not in allowed:
            raise InvalidGrant(f"{what} {shown(part)} is not allowed; there are {', '.join(allowed)}")
    return frozenset(found)


STRANGER = Grant()
"""What somebody without credentials has: nothing but what is public."""
ANYBODY = Grant(
    subscribe=EVERYTHING,
    publish=EVERYTHING,
    publish_parts=get_args(PublishPart),
    admin=get_args(AdminPart),
)
"""Everything, for everybody: what a hub under development grants."""


def effect(wanted: Subscription, grant: Grant, public: Rights) -> Subscription:
    """What a client that wants this and has this grant is given: an equal object for all to whom the same is given, so
    that they share a feed however much their grants differ.

    Of what is granted the private events belong to it, of what is only `public` they do not. Raises `Forbidden` if a
    topic is neither, or a pattern stays within neither: what may not be seen is answered as if it did not exist.
    """
    # Patterns are compiled for each client that may have them, and many names would take memory.
    found = _effect_of_one if len(wanted.topics) == 1 and not wanted.patterns else _effect
    return found(wanted, grant.subscribe, "metrics" in grant.admin, public)


def _effect(wanted: Subscription, rights: Rights, sees_own: bool, public: Rights) -> Subscription:
    names: list[str | Pattern] = [*wanted.topics, *wanted.patterns]
    public_only = frozenset([name for name in names if not _is_granted(name, rights, sees_own)])
    for name in public_only:
        if not (public.cover_pattern(name) if isinstance(name, Pattern) else public.cover(name)):
            raise Forbidden("what this client wants is not there for it")
    if len(public_only) == len(names):
        return Subscription(wanted.topics, wanted.patterns, False)
    return Subscription(wanted.topics, wanted.patterns, True, public_only)


_effect_of_one = lru_cache(MAX_EFFECTS)(_effect)


def _is_granted(name: str | Pattern, rights: Rights, sees_own: bool) -> bool:
    if isinstance(name, Pattern):
        return rights.cover_pattern(name)
    if name.startswith(OWN_TOPICS):
        return sees_own
    return rights.cover(name)


def check_publishable(event: Event, grant: Grant) -> None:
    """Raise `Forbidden` unless the grant allows to publish this event: the right to each of its topics, and to what its
    publisher decided beside."""
    for topic in event.topics:
        if not grant.publish.cover(topic):
            raise Forbidden("this publisher may not publish to one of the topics")
    parts = grant.publish_parts
    if (
        (event.id is not None and "id" not in parts)
        or (event.retry is not None and "retry" not in parts)
        or (not event.private and "public" not in parts)
    ):
        raise Forbidden("this publisher may not set id, retry or private as the event has them")
