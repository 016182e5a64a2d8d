"""A hub that opens anew with each kind of broker, and what is published while it closes."""

from __future__ import annotations

from histories import DROPPING
from ssepool import AccessConfig, Hub, HubConfig

TOPICS = AccessConfig(public_topics=("news",))


async def test_a_hub_opens_anew_and_publishes_until_it_has_closed(kind: str, url: str) -> None:
    hub = Hub(HubConfig(broker=url, access=TOPICS))
    hub.on_disconnect(lambda: hub.publish("news", "a client has left"))
    ids: list[str] = []
    for life in range(2):
        async with hub:
            ids.append(await hub.publish("news", f"in life {life}"))
            hub.shutdown()
            ids.append(await hub.publish("news", "behind the signal"))
            hub.parts.engine.hooks.start("disconnect")
            before = hub.parts.engine
    async with hub:
        assert hub.parts.engine is not before
        log = hub.parts.engine.log
        last = await hub.publish("news", "in the last life")
        await log.reached(int(last.partition("-")[2]))
        place = last.partition("-")[2]
        if kind == "memory":
            assert place == "1"
            assert len({id.partition("-")[0] for id in [*ids, last]}) == 3
        else:
            assert place == "7"
            assert len({id.partition("-")[0] for id in [*ids, last]}) == (3 if kind in DROPPING else 1)
            kept = b"".join([entry.frame for entry in await log.broker.read(0, max_entries=10)])
            assert kept.count(b"a client has left") == 2
