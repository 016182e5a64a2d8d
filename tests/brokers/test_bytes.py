"""Bytes that others have written, through each kind of broker: run one with `-k redis`."""

from __future__ import annotations

import httpx

from histories import Open, data, read_all
from ssepool import Event, Hub, HubConfig
from ssepool.brokers.record import records
from ssepool.config import MiB

WRITTEN = (
    '{"price": 1.10, "long": 123456789.123456789123, "a": 1, "a": 2, "\\u00e9": 1e3}',
    "123456789012345678901234567890",
    '[ 1.0,\t-0.0, "\\/" ]',
)


async def test_json_published_over_http_keeps_its_bytes(url: str) -> None:
    async with Hub(HubConfig(broker=url, detach=False)) as hub:
        transport = httpx.ASGITransport(hub.dev_app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = "".join(f'{{"topic": "a", "data": {text}}}\n' for text in WRITTEN)
            answer = await client.post("/events", content=body, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 201, answer.text
        broker = hub.parts.engine.log.broker
        assert data(await broker.read(0, max_entries=10)) == list(WRITTEN)


async def test_a_frame_of_others_keeps_its_lines(make: Open) -> None:
    frame = ": note\nevent: patch\nunknown: 1\ndata:tight\ndata:  wide\ndata\n\n"
    broker = await make()
    await broker.append(records([Event.from_frame(frame, ("a",)), Event.from_frame(f"id: own\n{frame}", "a")], MiB))
    made, own = await read_all(broker)
    assert made.frame.decode() == f"id: {made.id}\n{frame}"
    assert own.frame.decode() == f"id: own\n{frame}"
