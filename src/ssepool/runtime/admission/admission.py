"""Admission: a request's way from its arrival to a slot and a live stream, or to a polite refusal."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Self

import msgspec

from ssepool.core.beginning import Beginning, echoed, newest_of_each
from ssepool.core.event import MAX_RETRY_MILLISECONDS
from ssepool.core.frames import Dialect, jittered
from ssepool.core.pool import Pool
from ssepool.core.refusal import reason_code, refusal_body, status_and_code
from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState, WaiterState
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.core.waiting import Waiter
from ssepool.errors import PoolClosed, PoolTimeout, RateExceeded, SSEPoolError, TokenExpired, Unauthorized
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import Handover, Reply
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.newest import Newest
from ssepool.runtime.streams.replay import Replay
from ssepool.runtime.streams.slices import Wakes
from ssepool.runtime.streams.socket import SocketLink

RENEW_SECONDS = 60.0
"""Seconds, and up to as many again, after which a client comes back whose grant has run out: time for its page to renew
what it presents."""


class ClientGone(Exception):
    """The client left before its stream opened."""


class SlotRequest:
    """One request's application for a slot: what the pool calls back when the request had to wait.

    It owns what it was given, a place in the queue or a slot, until `take`. A context manager: what it still owns at
    the end goes back to the pool.
    """

    def __init__(self, pool: Pool, visit: Visit, now: Callable[[], float], wakes: Wakes) -> None:
        """Apply. `now` is the pool's clock, in seconds; `wakes` has the request go on when it is decided. Raises
        `PoolFull` or `PoolClosed`."""
        self._pool = pool
        self._now = now
        self._link: Link | None = None
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slot: Slot | None = None
        self._wakes = wakes
        self._decided = False
        self._failure: WaiterState | None = None
        self._waiter: Waiter | None = None
        self._announced = 0
        """The place in the queue that the client was told last."""
        self._announced_at = 0.0
        self._visit = visit
        self._gone: asyncio.Future[None] | None = None
        place = pool.acquire(
            now(),
            self,
            ip=visit.ip,
            user=visit.user,
            topics=visit.limited,
            patterns=visit.bounded,
            ends_at=visit.term.ends_at,
            grant=visit.grant,
        )
        if isinstance(place, Slot):
            self._slot = place
        else:
            self._waiter = place

    @property
    def waits(self) -> bool:
        """Whether there is no slot yet."""
        return self._slot is None

    async def granted_slot(self, link: Link) -> None:
        """Wait for the slot. Raises `PoolTimeout`, `PoolClosed`, or `ClientGone` when the link ends meanwhile."""
        self._link = link
        link.owner = self
        if self._waiter is not None and link.started:
            self._announce_nowait(self._waiter)
        if self._slot is None and not link.ended:
            await self._outcome
        if self._failure is not None:
            raise self._error(self._failure)
        if link.ended:
            raise ClientGone

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the client leaves before the slot is taken. To be asked for once, while the link goes on."""
        self._gone = asyncio.get_running_loop().create_future()
        return self._gone

    def take(self) -> Slot:
        """The slot; from now on it is the caller's to release."""
        assert self._slot is not None
        slot, self._slot = self._slot, None
        return slot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._waiter is not None:
            self._pool.leave(self._waiter)
        if self._slot is not None:
            failed = kind is not None and issubclass(kind, Exception)
            self._pool.release(self.take(), self._now(), Reason.ERROR if failed else Reason.CLIENT_CLOSED)

    def announce(self, position: int, waiting: int, now: float) -> None:
        """Tell the client its place in the queue, or that it is not forgotten."""
        link = self._link
        if link is None or link.ended or not link.started or link.stalled:
            return
        if position != self._announced:
            link.push(link.dialect.queued(position, waiting))
        elif now - self._announced_at >= self._pool.config.heartbeat_interval:
            link.push(link.dialect.heartbeat)
        else:
            return
        self._announced, self._announced_at = position, now
        link.flush()

    def _announce_nowait(self, waiter: Waiter) -> None:
        # The next look of the reaper, which tells of changes, may be a second away, and until then nothing at all
        # would be on the wire: the head goes out with the first announcement.
        if position := self._pool.position(waiter):
            self.announce(position, len(self._pool.waiting), self._now())

    # What the pool calls.

    def granted(self, slot: Slot) -> bool:
        """Take a slot, unless the client has left meanwhile."""
        if self._decided or self._outcome.done():
            return False
        self._slot = slot
        self._decide()
        return True

    def failed(self, outcome: WaiterState) -> None:
        """There will be no slot."""
        if not self._decided:
            self._failure = outcome
            self._decide()

    # What the link calls.

    def link_ended(self, reason: Reason) -> None:
        """The client has left."""
        if self._gone is not None:
            self._gone.set_result(None)
        if not self._decided:
            self._decide()
        if self._waiter is not None:
            self._pool.leave(self._waiter)

    def _decide(self) -> None:
        self._decided = True
        self._wakes.wake(self._outcome)

    def _error(self, outcome: WaiterState) -> SSEPoolError:
        if outcome is WaiterState.TIMED_OUT:
            waited = self._pool.config.acquire_timeout
            return PoolTimeout(f"no slot came free ({self._pool!r}, waited {waited:.1f} s)")
        if self._pool.state is PoolState.OPEN:  # then it takes no more of this one alone
            return lapsed(self._visit, self._now()) or _revoked()
        return PoolClosed(f"the pool takes no more requests ({self._pool!r})")


class Nobody:
    """The applicant of a request that does not wait."""

    def granted(self, slot: Slot) -> bool:
        """Nobody is there to take it."""
        return False

    def failed(self, outcome: WaiterState) -> None:
        """Nobody is there to be told."""

    def announce(self, position: int, waiting: int, now: float) -> None:
        """Nobody is there to be told."""


NOBODY = Nobody()
"""The one applicant of all requests that do not wait."""


def is_to_stay_away(engine: Engine, visit: Visit, now: float) -> bool:
    """Whether this client has everything already, was kicked, or has a grant that was taken back, at this time by the
    hub's clock: then it gets `farewell`."""
    return visit.has_everything or engine.bans.contains(visit, now) or engine.revocations.covers(visit.grant)


def farewell(engine: Engine, visit: Visit) -> Reply | None:
    """The answer to a client that is to stay away; None for all others.

    One that has everything, whose grant was taken back, or that was kicked and is known by its user, gets 204, which
    ends an EventSource for good (WHATWG HTML, 9.2.3). Any other only looks like one that was kicked, as all do behind
    one address: it is told to come back when the ban is over, or after 5 minutes, whatever is earlier.
    """
    if visit.has_everything or engine.revocations.covers(visit.grant):
        return 204, [], b""
    left = engine.bans.seconds_left(visit, engine.now())
    if not left:
        return None
    if visit.user is not None:
        return 204, [], b""
    retry = min(math.ceil(left * 1000), MAX_RETRY_MILLISECONDS) + engine.retry()
    if not visit.dialect.own_events:
        return _honest(503, Reason.KICKED.value, "this client, or one that looks like it, was sent away", retry)
    return 200, list(visit.dialect.headers), visit.dialect.closed(Reason.KICKED.value, retry=retry)


def lapsed(visit: Visit, now: float) -> SSEPoolError | None:
    """Why a client may not have a stream although it was given a grant: since then its time has run out."""
    if not visit.term.is_over(now):
        return None
    if visit.term.reason is Reason.TOKEN_EXPIRED:
        return TokenExpired("the grant has run out", presented=True)
    return PoolTimeout("no slot came free until the grant had to be asked for again")


def check_grant(engine: Engine, visit: Visit) -> None:
    """Raise an error if the grant of this client has run out or has been taken back since it was given: a request may
    have waited for long. Called in the moment in which the stream is to begin."""
    if (error := lapsed(visit, engine.now())) is not None:
        raise error
    if engine.revocations.covers(visit.grant):
        raise _revoked()


def _revoked() -> Unauthorized:
    return Unauthorized("the grant has been revoked", presented=True)


def rate_refusal(engine: Engine, visit: Visit) -> RateExceeded | None:
    """Why this client's user or address may not subscribe now; None if it may, and then this counts as one request. An
    application that has made the visit by itself decides by itself."""
    if engine.rates.subscribe is None or not visit.stranger:
        return None
    return engine.rates.refusal("subscribe", visit.ip, engine.now(), user=visit.user)


def compile_late(engine: Engine, visit: Visit) -> None:
    """Compile the patterns of a client that is let in although it was not to be when they were looked at: a ban or a
    rate may have run out since. Raises `InvalidTopic`."""
    subscription = visit.subscription
    if (
        visit.bounded
        and subscription is not None
        and not subscription.is_compiled
        and not engine.pool.refuses(visit.ip, visit.user, visit.limited, visit.bounded)
    ):
        subscription.compile()


def is_refused(engine: Engine, visit: Visit) -> bool:
    """Whether this client would be turned away at once, so that nothing need be prepared for it."""
    return (
        is_to_stay_away(engine, visit, engine.now())
        or engine.pool.refuses(visit.ip, visit.user, visit.limited, visit.bounded)
        or not engine.rates.allows("subscribe", visit.ip, engine.now(), user=visit.user)
    )


def admit_nowait(engine: Engine, visit: Visit, take: Callable[[], Handover], head: Callable[[Dialect], bytes]) -> bool:
    """Stream to a client whose socket no server holds, if a slot is free and nothing is out of the ordinary.

    False if it must take the longer way: the pool is full or not open, the client is to be told to stay away, or its
    address has used up its rate. Then nothing has been done, and the socket, which `take` takes, is still the caller's.
    `head` gives the response's head, which says that the body is chunked.
    """
    pool, rates = engine.pool, engine.rates
    limited = visit.limited if pool.limits.any else None  # most pools have none
    bounded = visit.bounded
    now = engine.now()
    if (
        engine.streamer is None
        or pool.state is not PoolState.OPEN
        or not pool.count(SlotState.FREE)
        or is_to_stay_away(engine, visit, now)
        or visit.term.ends_at <= now
        or ((limited is not None or bounded) and pool.exceeds(visit.ip, visit.user, limited or (), bounded))
        # What kept it out when its patterns were looked at may be over by now.
        or (bounded and visit.subscription is not None and not visit.subscription.is_compiled)
        # The last of all, because it takes; and not by way of `rate_refusal`, which would count the refusal twice.
        or (
            rates.subscribe is not None
            and visit.stranger
            and not rates.allows("subscribe", visit.ip, now, user=visit.user, take=True)
        )
    ):
        return False
    slot = pool.acquire(now, NOBODY, ip=visit.ip, user=visit.user, topics=limited or (), patterns=bounded)
    assert isinstance(slot, Slot)
    try:
        link = SocketLink(engine.links, engine.streamer, take(), visit.dialect)
    except BaseException:  # nobody would ever give the slot back: the reaper leaves one without a link to its request
        pool.release(slot, engine.now(), Reason.ERROR)
        raise
    link.start(head(visit.dialect), chunked=True)
    welcome_nowait(engine, engine.connections.bind(slot, link, visit), link, visit)
    return True


async def welcome(engine: Engine, connection: Connection, link: Link, visit: Visit) -> None:
    """Open the stream: the first event, the hooks, what the client missed, and then what is live."""
    if link.ended:  # a task that was made for this may come too late
        return
    if (beginning := _begin(engine, connection, link, visit)) is not None:
        await engine.hooks.run("connect", connection)
        _go_on(engine, connection, link, visit, beginning)


def welcome_nowait(engine: Engine, connection: Connection, link: Link, visit: Visit) -> None:
    """As `welcome`, for callers that cannot wait: a task is made only if there are hooks to wait for."""
    if "connect" in engine.hooks:
        engine.tasks.start(welcome(engine, connection, link, visit))
    elif (beginning := _begin(engine, connection, link, visit)) is not None:
        _go_on(engine, connection, link, visit, beginning)


def _begin(engine: Engine, connection: Connection, link: Link, visit: Visit) -> Beginning | None:
    """Send `ssepool.open`, and return the place where the stream begins; None if the client was sent away."""
    assert link.slot is not None
    pool = engine.pool
    pool.start(link.slot, engine.now(), visit.term)
    if link.stalled:  # already before it had a slot to be judged by
        pool.block(link.slot, engine.now())
    if pool.state is not PoolState.OPEN:  # it began to drain or close while the head was on its way
        reason = Reason.DRAINED if pool.state is PoolState.DRAINING else Reason.SHUTDOWN
        engine.connections.evict(link.slot, reason)
        return None
    if engine.revocations.covers(visit.grant):  # likewise
        engine.connections.evict(link.slot, Reason.REVOKED)
        return None
    id, wanted, position = connection.id, visit.last_event_id, engine.log.position
    if visit.source is not None and visit.source.start is not None:
        position = min(position, visit.source.start)
    beginning = Beginning(engine.log.window.epoch, position)
    place = None  # what is sent to one client alone has none
    if visit.subscription is not None:
        place = beginning.id if wanted is None else echoed(wanted)
    link.push(link.dialect.opened(id, engine.connections.token(id), engine.node, retry=engine.retry(), id=place))
    return beginning


def _go_on(engine: Engine, connection: Connection, link: Link, visit: Visit, beginning: Beginning) -> None:
    if link.is_leaving:
        return
    source, subscription = visit.source, visit.subscription
    if source is not None:
        source.attend(link, connection, visit.generator)
    if subscription is not None:
        _follow(engine, link, subscription, visit.last_event_id, beginning)
    if source is not None and source.outcome is not None:
        link.finish(source.outcome)
    else:
        link.flush()


def _follow(
    engine: Engine, link: Link, subscription: Subscription, last_event_id: str | None, beginning: Beginning
) -> None:
    """Give a link what it missed behind an id, or else behind the place of which `ssepool.open` has told it, and then
    what is live."""
    log, feeds = engine.log, engine.feeds
    epoch, after = beginning
    if last_event_id is None and epoch != log.window.epoch:  # a history that was lost while the hooks ran
        last_event_id = beginning.id
    if last_event_id is not None and (each := newest_of_each(last_event_id)) is not None:
        newest = Newest(log, feeds, engine.tasks, subscription, each)
        link.replay = newest
        newest.begin(link)
    elif last_event_id is not None:
        replay = Replay(log, feeds, engine.tasks, subscription, wanted=last_event_id)
        link.replay = replay
        replay.begin(link)
    elif after < log.position:
        link.replay = Replay(log, feeds, engine.tasks, subscription, after=after)
    else:
        feeds.join(link, subscription)


def no_slot_reply(engine: Engine, error: SSEPoolError, dialect: Dialect) -> Reply:
    """Status, headers and body for a request that gets no slot.

    Programs get an honest 503 (429 for a rate) with `on_full = "reject"`, and so does a proxy that asks another node
    then, with `on_drain = "reject"`. A browser's EventSource gives up for ever on any status but 200 (WHATWG HTML,
    9.2.3), so otherwise the answer is a stream that says when to come back, and ends. So it is in any case for a grant
    that has just run out, which a page may be about to renew. One that was taken back gets 204, as in `farewell`.
    A client that has no events of the hub's own would take that stream for an empty answer, so it gets the honest one.
    """
    retry, pool = retry_after(engine, error), engine.config.pool
    status, code = status_and_code(error)
    if not dialect.own_events:
        return _honest(status, code, str(error), retry)
    if isinstance(error, TokenExpired):
        return 200, list(dialect.headers), dialect.closed(code, retry=retry)
    if isinstance(error, Unauthorized):
        return 204, [], b""
    if pool.on_full == "reject" or (pool.on_drain == "reject" and isinstance(error, PoolClosed)):
        return _honest(status, code, str(error), retry)
    return 200, list(dialect.headers), dialect.closed(code, retry=retry)


def is_final(error: SSEPoolError) -> bool:
    """Whether a client that was turned away for this has no reason to come back."""
    return type(error) is Unauthorized


def _honest(status: int, code: str, message: str, retry: int) -> Reply:
    """A refusal that says that it is one, to a client that is to come back after so many milliseconds."""
    seconds = str(max(1, round(retry / 1000))).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", seconds)]
    return status, headers, msgspec.json.encode(refusal_body(code, message))


def last_words(engine: Engine, error: SSEPoolError, dialect: Dialect) -> bytes:
    """The goodbye to a client that was told its place in the queue, and gets no slot."""
    code = Reason.REVOKED.value if is_final(error) else reason_code(error)
    return dialect.closed(code, retry=retry_after(engine, error))


def retry_after(engine: Engine, error: SSEPoolError) -> int:
    """Milliseconds after which a client that was turned away for this is to come back, with jitter."""
    if isinstance(error, TokenExpired):
        return jittered(RENEW_SECONDS, engine.chance())
    retry = engine.retry()
    return retry + math.ceil(error.seconds * 1000) if isinstance(error, RateExceeded) else retry
