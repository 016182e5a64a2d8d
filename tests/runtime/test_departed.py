"""What is left of a client: all that was known, to read and to keep."""

from __future__ import annotations

import dataclasses

import pytest

from parts import NEWS, connection_of, delivered, opened, running, until
from ssepool import Connection, ConnectionReleased, Departed, Event, Grant
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_hook_is_told_all_that_was_known_and_may_keep_it(is_async: bool) -> None:
    kept: list[Departed] = []
    online: set[object] = set()

    def leave(connection: Departed, reason: str) -> None:
        assert reason == connection.reason
        online.discard(connection)
        kept.append(connection)

    async def leave_later(connection: Departed, reason: str) -> None:
        leave(connection, reason)

    async with running() as engine:
        engine.hooks.add("connect", online.add)
        engine.hooks.add("disconnect", leave_later if is_async else leave)
        wanted = Subscription.of(["news", "a"], ["orders/:id"])
        link, _slot = await opened(
            engine, Visit(grant=Grant(subject="ann"), subscription=wanted, ip="::1", data={"n": 1})
        )
        connection: Connection = connection_of(link)
        assert connection in online
        await engine.publish_many([Event("x", ("news",)), Event("y", ("a",))])
        await delivered(engine)
        link.flush()
        before = (connection.opened_at, connection.bytes_sent)
        link.end(Reason.KICKED)
        await until(lambda: kept)
        assert not online
        _, _ = await opened(engine, NEWS)  # in the same slot
        [gone] = kept
        assert (gone.id, gone.user, gone.ip, gone.data) == (connection.id, "ann", "::1", {"n": 1})
        assert (gone.topics, gone.patterns) == (("a", "news"), ("orders/:id",))
        assert (gone.events_sent, gone.events_skipped, gone.bytes_sent) == (2, 0, before[1])
        assert gone.opened_at == pytest.approx(before[0], abs=0.1)
        assert 0 <= gone.seconds < 60
        assert (gone.reason, gone.state, gone.is_open) == ("kicked", "closed", False)
        assert gone == connection and connection == gone
        assert gone != object()
        with pytest.raises(dataclasses.FrozenInstanceError):
            gone.user = "ben"  # type: ignore[misc]
        with pytest.raises(ConnectionReleased):
            await gone.send("x")
        with pytest.raises(ConnectionReleased):
            gone.close()


async def test_without_a_hook_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as engine:
        monkeypatch.setattr("ssepool.runtime.connections.Departed", None)
        link, _ = await opened(engine)
        link.end(Reason.KICKED)
        assert link.ended
