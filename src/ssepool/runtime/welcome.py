"""Welcome: how a request that has got its slot becomes a live stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason
from ssepool.runtime import frames
from ssepool.runtime.connection import Connection
from ssepool.runtime.link import Link
from ssepool.runtime.replay import Replay
from ssepool.runtime.visit import Visit

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub


def connect(hub: Hub, slot: Slot, link: Link, visit: Visit) -> Connection:
    """Bind a reserved slot, a link and a request together. The slot is freed when the link ends."""
    if visit.subscription is not None:
        visit.subscription = hub.feeds.shared(visit.subscription)
    connection = Connection(hub, slot, link, visit)
    slot.holder = link
    link.slot = slot
    link.owner = connection
    return connection


async def welcome(hub: Hub, connection: Connection, link: Link, visit: Visit) -> None:
    """Open the stream: the first event, the hooks, what the client missed, and then what is live."""
    if not link.ended and _begin(hub, connection, link):  # a task that was made for this may come too late
        await hub.hooks.run("connect", connection)
        _go_on(hub, connection, link, visit)


def welcome_now(hub: Hub, connection: Connection, link: Link, visit: Visit) -> None:
    """As `welcome`, for callers that cannot wait: a task is made only if there are hooks to wait for."""
    if "connect" in hub.hooks:
        hub.tasks.start(welcome(hub, connection, link, visit))
    elif _begin(hub, connection, link):
        _go_on(hub, connection, link, visit)


def _begin(hub: Hub, connection: Connection, link: Link) -> bool:
    assert link.slot is not None
    hub.pool.start(link.slot, hub.now())
    if link.stalled:  # already before it had a slot to be judged by
        hub.pool.block(link.slot, hub.now())
    if hub.pool.state is not PoolState.OPEN:  # it began to drain or close while the head was on its way
        hub.evict(link.slot, Reason.DRAINED if hub.pool.state is PoolState.DRAINING else Reason.SHUTDOWN)
        return False
    link.push(frames.opened(connection.id, connection.token, hub.node, retry=hub.delivery.retry()))
    return True


def _go_on(hub: Hub, connection: Connection, link: Link, visit: Visit) -> None:
    if link.ended or link.ending:
        return
    production = visit.production
    if production is not None:
        production.attend(connection, link)
    subscription = visit.subscription
    if subscription is not None:
        after = production.start if production is not None else hub.log.position
        if visit.last_event_id is not None:
            link.replay = Replay(hub.log, hub.feeds, hub.tasks, subscription, wanted=visit.last_event_id)
            link.replay.begin(link)
        elif after < hub.log.position:
            link.replay = Replay(hub.log, hub.feeds, hub.tasks, subscription, after=after)
        else:
            hub.feeds.join(link, subscription)
    link.flush()
