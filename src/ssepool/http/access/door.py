"""Door: where every request is given its grant, and is turned away without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, Protocol

from ssepool.config import TOKEN_COOKIE
from ssepool.core.event import Event
from ssepool.core.grant import ANYBODY, STRANGER, AdminPart, Grant, check_publishable, effect
from ssepool.core.rights import NOTHING, Rights
from ssepool.core.topics import Subscription
from ssepool.errors import AccessDenied, Forbidden, TokenExpired, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.credentials import PLACES, presented


class _Later(Enum):
    LATER = "later"


LATER: Final = _Later.LATER
"""The answer of a source that has to wait for something."""

RECENT_SECONDS = 600.0
"""Seconds after its end for which a grant counts as one that its holder may be about to renew."""


class Source(Protocol):
    """Where grants come from: tokens, a function of the application, an answer of another server."""

    def at_once(self, asking: Asking) -> Grant | Literal[_Later.LATER] | None:
        """The grant of this request; None if it has none from here, `LATER` if it takes time to know. Raises
        `AccessDenied` if the request presents something to this source that does not count."""

    async def in_time(self, asking: Asking) -> Grant | None:
        """As `at_once`, and waits where that would say `LATER`."""


class Door:
    """Asks its sources in order; the first that knows of a grant decides. Who has none is nobody, and may read what is
    public."""

    def __init__(
        self,
        sources: Sequence[Source] = (),
        public: Rights = NOTHING,
        *,
        wall_clock: Callable[[], float],
        revoked: Callable[[Grant], bool] = lambda grant: False,
        cookie_name: str = TOKEN_COOKIE,
        check_page: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """`public` is what everybody may read, `wall_clock` the time in seconds since the epoch, and `revoked` tells
        whether a grant has been taken back. `cookie_name` is that of the cookie with a token. `check_page` takes the
        scope of a request that came with cookies, and raises `Forbidden` if a page of another site has sent it."""
        self.public = public
        """What everybody may read."""
        self.asks_where = any(getattr(source, "asks_where", True) for source in sources)
        """Whether a source may go by the address that a request comes from. To find it takes time."""
        self._sources = sources
        self._wall_clock = wall_clock
        self._revoked = revoked
        self._cookie_name = cookie_name
        self._check_page = check_page

    @property
    def takes_credentials(self) -> bool:
        """Whether there is any way to have more than what is public."""
        return bool(self._sources)

    def at_once(self, asking: Asking) -> Grant | None:
        """The grant of a request; None if it takes time to know. Raises `AccessDenied`, and what a source raises."""
        self._look(asking)
        for source in self._sources:
            found = source.at_once(asking)
            if found is LATER:
                return None
            if found is ANYBODY and self._check_page is None:
                return found  # nothing of it can be wrong
            if found is not None:
                return self._checked(found, asking, self._wall_clock())
        return self._nobody(asking)

    async def grant(self, asking: Asking) -> Grant:
        """The grant of a request. Raises as `at_once`."""
        asked_at = self._wall_clock()  # who is logged out while a source thinks was logged in before
        self._look(asking)
        for source in self._sources:
            found = source.at_once(asking)
            if found is LATER:
                found = await source.in_time(asking)
            if found is not None:
                return self._checked(found, asking, asked_at)
        return self._nobody(asking)

    def _look(self, asking: Asking) -> None:
        """Look what a request presents. Raises `BadCredentials`."""
        if not asking.fields.keys().isdisjoint(PLACES):
            asking.presented = presented(asking.scope["headers"], self._cookie_name)

    def _checked(self, grant: Grant, asking: Asking, asked_at: float) -> Grant:
        self._check_cookies(grant, asking)
        grant = grant.asked(asked_at)
        if self._revoked(grant):
            raise _of(grant, Unauthorized("the grant has been revoked", presented=True))
        if grant.expires_at is not None and (late := self._wall_clock() - grant.expires_at) >= 0:
            error = TokenExpired if late < RECENT_SECONDS else Unauthorized
            raise _of(grant, error("the grant has run out", presented=True))
        return grant

    def _check_cookies(self, grant: Grant, asking: Asking) -> None:
        """Browsers send cookies along whatever page asks; a token in a field only a page of ours can send."""
        token = asking.presented
        if self._check_page is None or (token is not None and token.token is not None and not token.by_cookie):
            return
        if b"cookie" in asking.fields:
            try:
                self._check_page(asking.scope)
            except Forbidden as error:
                raise _of(grant, error) from None

    def _nobody(self, asking: Asking) -> Grant:
        if asking.presented is not None:
            raise Unauthorized("the credentials do not count here", presented=True)
        return STRANGER

    # What a grant is needed for. Who has no credentials is told to present some.

    def reduce(self, wanted: Subscription, grant: Grant) -> Subscription:
        """What a client with this grant is given of what it wants; see `effect`. Raises `AccessDenied`."""
        try:
            return effect(wanted, grant, self.public)
        except Forbidden as error:
            raise _refusal(grant, error) from None

    def check_publishable(self, events: Iterable[Event], grant: Grant) -> None:
        """Raise `AccessDenied` unless the grant allows to publish all of these events."""
        try:
            for event in events:
                check_publishable(event, grant)
        except Forbidden as error:
            raise _refusal(grant, error) from None

    def check_may_publish(self, grant: Grant) -> None:
        """Raise `AccessDenied` unless the grant allows to publish anything: asked before a body is read."""
        if not grant.publish:
            raise _refusal(grant, Forbidden("this grant has no right to publish"))

    def check_may_administer(self, part: AdminPart, grant: Grant) -> None:
        """Raise `AccessDenied` unless the grant has this part of administration."""
        if not grant.may_administer(part):
            raise _refusal(grant, Forbidden(f"this grant has no right to {part}"))


def _refusal(grant: Grant, error: Forbidden) -> AccessDenied:
    return Unauthorized("this takes credentials") if grant is STRANGER else _of(grant, error)


def _of(grant: Grant, error: AccessDenied) -> AccessDenied:
    error.grant = grant
    return error
