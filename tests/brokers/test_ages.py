"""How old an event is: counted from when it was published, whatever nodes begin anew."""

from __future__ import annotations

import time
from typing import Any

import pytest

from histories import DROPPING
from ssepool.brokers import connect
from ssepool.brokers.record import records
from ssepool.config import HubConfig
from ssepool.core.event import Event
from ssepool.runtime.streams.log import EventLog

pytestmark = pytest.mark.parametrize("kind", DROPPING)

HOUR = 3600.0


async def _room() -> None: ...


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"history_age": HOUR}, [2, 2, 0]),
        ({"history_age": HOUR, "topic_rules": ("day age=86400", "minute age=60")}, [1, 1, 1]),
        ({"topic_rules": ("minute age=60",), "history_age": 10 * HOUR}, [1, 1, 1]),
    ],
    ids=["all", "some longer", "some shorter"],
)
async def test_an_event_is_as_old_after_a_restart_as_before(
    url: str, settings: dict[str, Any], kept: list[int]
) -> None:
    config = HubConfig(broker=url, **settings)
    broker = connect(config)
    await broker.open()
    await broker.append(records([Event("a", ("day",)), Event("b", ("minute",))], config.max_event_size))
    await broker.close()

    now, later = 0.0, time.time() + 3000  # another node begins, when 50 minutes have gone by
    log = EventLog(connect(config), lambda entries: None, lambda missed: None, _room, lambda: now, lambda: later + now)
    await log.open()
    assert log.window.kept.events == kept[0]  # nobody gets what is too old, not in the first moment either
    found = []
    for seconds in (0, 500, 200):
        now += seconds
        log.expire()
        found.append(log.window.kept.events)
    await log.store([Event("c", ("day",))])  # whose clock is behind ours by 50 minutes, and counts from now
    await log.reached(3)
    log.expire()
    assert (found, log.window.kept.events) == (kept, kept[-1] + 1)
    await log.close()
