"""AuthorizeURL: grants from the user's own application, which is asked over HTTP with what the request came with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlencode

from ssepool.config import MiB
from ssepool.core.grant import Grant, effect
from ssepool.core.remembered import Remembered
from ssepool.core.rights import NOTHING, Rights
from ssepool.errors import AuthorizeUnavailable, BadCredentials, Forbidden, InvalidGrant, SSEPoolError
from ssepool.http.access.answer import read_answer
from ssepool.http.access.application import MAX_CONNECTIONS, HeaderFields, Reply, Unanswered
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import LATER, _Later

logger = logging.getLogger("ssepool")

MAX_GRANTS = 10_000
"""Grants that are remembered at most."""
MAX_GRANTS_BYTES = 16 * MiB
"""Bytes of the answers whose grants are remembered at most; a grant takes some five times as much as its answer."""
REMEMBERED_PART = 0.5
"""The part of its life for which a grant is remembered: who comes back because the grant has run out, or is about to,
must not be given the same one again."""
MAX_WAITING = 1000
"""Questions that wait for their turn at most; what is more is refused at once."""
MAX_WISH_BYTES = 2000
"""Bytes of topics and patterns that are told at most: servers take some 4,000 bytes in the first line of a request."""
LOG_SECONDS = 1.0
"""Seconds between two lines of the log about an application that does not answer as it must."""

TOLD_FIELDS = (b"cookie", b"authorization", b"user-agent")
"""Header fields that the application is told. Some bind a session to the browser that it began in."""


class Answering(Protocol):
    """What is asked: an `Application`."""

    shown: str
    """Its URL, as logs may have it."""

    async def ask(self, headers: HeaderFields, query: str) -> Reply:
        """Ask, with header fields and a query. Raises `Unanswered`."""

    async def close(self) -> None:
        """Nothing will be asked any more."""


_Outcome = Grant | Callable[[], SSEPoolError] | None
"""What came of a question: a grant, an error to be made for each who waited, or that the application knows nobody."""


class _Shown(NamedTuple):
    """What the application is shown of a request."""

    fields: HeaderFields
    query: str
    """The wish."""
    key: str
    """Stands for everything but the wish."""


class AuthorizeURL:
    """A source: asks the application about each request that has a cookie or `Authorization`, and remembers its grants.

    A grant is remembered by all that the application was shown but for the wish, and used for another wish only if it
    suffices for that: an application may list all rights of a user, or answer each wish by itself. What it refuses is
    not remembered: who logs in is let in at once.
    """

    def __init__(
        self,
        application: Answering,
        *,
        timeout: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float],
        public: Rights = NOTHING,
        check_page: Callable[[Mapping[str, Any]], None] = lambda scope: None,
        revoked: Callable[[Grant], bool] = lambda grant: False,
    ) -> None:
        """A question takes `timeout` seconds at most. `now` is the hub's clock, `wall_clock` the time since the epoch.
        `check_page` raises `Forbidden` if a page of another site has sent a request together with its visitor's
        cookies. A grant that is `revoked` is asked for anew."""
        self._application = application
        self._timeout = timeout
        self._now = now
        self._wall_clock = wall_clock
        self._public = public
        self._check_page = check_page
        self._revoked = revoked
        self._grants: Remembered[Grant] = Remembered(MAX_GRANTS, MAX_GRANTS_BYTES)
        self._flights: dict[tuple[str, str], asyncio.Task[_Outcome]] = {}
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._forgotten = 0
        self._said_at = -LOG_SECONDS

    def at_once(self, asking: Asking) -> Grant | Literal[_Later.LATER] | None:
        """See `Source`. Raises `BadCredentials`, and `Forbidden` for a cookie that a page of another site makes use
        of."""
        shown = self._shown(asking)
        return None if shown is None else self._known(asking, shown.key) or LATER

    async def in_time(self, asking: Asking) -> Grant | None:
        """See `Source`. Raises also `Forbidden` if the application says so, and `AuthorizeUnavailable`."""
        shown = self._shown(asking)
        if shown is None:
            return None
        flight = shown.key, shown.query
        task = self._flights.get(flight)
        if task is None:
            if len(self._flights) >= MAX_CONNECTIONS + MAX_WAITING:
                raise self._unavailable(f"{len(self._flights)} questions are under way")()
            task = self._flights[flight] = asyncio.create_task(self._outcome(shown))
            task.add_done_callback(lambda _: self._flights.pop(flight, None))
        # Shielded: who leaves must not take the answer from the others who wait for it.
        outcome = await asyncio.shield(task)
        if outcome is None or isinstance(outcome, Grant):
            return outcome
        raise outcome()

    def forget(self, *, subject: str) -> None:
        """Forget the grants of a user, those too that are being asked for: the next request is asked about anew."""
        self._forgotten += 1
        self._grants.forget(lambda grant: grant.subject == subject)

    async def close(self) -> None:
        """Give up the questions that are under way; whoever waits for them is turned away."""
        flights = list(self._flights.values())
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._application.close()

    def _shown(self, asking: Asking) -> _Shown | None:
        """None for a request without credentials, which is nobody's."""
        fields = [(name, value) for name, value in asking.scope["headers"] if name in TOLD_FIELDS]
        names = [name for name, _ in fields]
        if b"cookie" not in names and b"authorization" not in names:
            return None
        if names.count(b"authorization") > 1:
            raise BadCredentials("there are two header fields Authorization; it takes one")
        if b"cookie" in names:
            self._check_page(asking.scope)
        if asking.ip is not None:
            fields.append((b"x-forwarded-for", asking.ip.encode("latin-1", "replace")))
        key = sha256(b"\n".join(b"%s:%s" % field for field in fields)).hexdigest()
        return _Shown(fields, _wish(asking), key)

    def _known(self, asking: Asking, key: str) -> Grant | None:
        grant = self._grants.get(key, self._now())
        if grant is None or self._revoked(grant):
            return None
        return grant if self._suffices(asking, grant) else None

    def _suffices(self, asking: Asking, grant: Grant) -> bool:
        if asking.wanted is None:
            return bool(grant.publish if asking.action == "publish" else grant.admin)
        try:
            effect(asking.wanted, grant, self._public)
        except Forbidden:
            return False
        return True

    async def _outcome(self, shown: _Shown) -> _Outcome:
        forgotten, asked_at = self._forgotten, self._wall_clock()
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                status, body = await self._application.ask(shown.fields, shown.query)
            if status == 401:
                return None
            if status == 403:
                return lambda: Forbidden("the application forbids this")
            if status != 200:
                return self._unavailable(f"it answered {status}; it takes 200 with a grant, 401 or 403")
            grant = read_answer(body, asked_at)
        except asyncio.CancelledError:  # by `close`, and by nobody else: the waiting ones are told
            return self._unavailable("the hub closes")
        except TimeoutError:
            return self._unavailable(f"no answer within {self._timeout:g} s")
        except (Unanswered, InvalidGrant) as error:
            return self._unavailable(str(error))
        if forgotten == self._forgotten:
            assert grant.expires_at is not None
            now = self._now()
            until = now + (grant.expires_at - asked_at) * REMEMBERED_PART
            self._grants.add(shown.key, grant, until=until, size=len(body), now=now)
        return grant

    def _unavailable(self, why: str) -> Callable[[], SSEPoolError]:
        now = self._now()
        if now - self._said_at >= LOG_SECONDS:
            self._said_at = now
            logger.error(
                "authorize_url %s: %s. Whom it was to decide about is turned away", self._application.shown, why
            )
        return lambda: AuthorizeUnavailable("the application that decides about this cannot be asked at the moment")


def _wish(asking: Asking) -> str:
    """The wish as a query: the action, and what a subscription names unless that is too long."""
    pairs = [("action", asking.action)]
    named = [*(("topic", topic) for topic in asking.topics), *(("pattern", text) for text in asking.patterns)]
    whole = urlencode([*pairs, *named])
    return whole if len(whole) <= MAX_WISH_BYTES else urlencode(pairs)
