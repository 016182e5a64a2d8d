"""What both clients make of data that no JSON has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from live import serve_command
from ssepool import Event, InvalidEvent
from ssepool.client import AsyncClient, Client


class Unknown:
    pass


def test_both_clients_ask_the_application_about_objects_that_they_do_not_know(tmp_path: Path) -> None:
    def encoder(unknown: Unknown) -> str:
        return type(unknown).__name__

    async def publish(url: str) -> None:
        async with AsyncClient(url, json_encoder=encoder) as client:
            await client.publish("a", {"n": Unknown()})

    with serve_command() as server, Client(server.url, json_encoder=encoder) as client:
        client.publish("a", [Unknown()])
        client.publish("a", Event.from_frame("event: t\ndata: x\n\n"))
        asyncio.run(publish(server.url))
        stream = client.subscribe("a", last_event_id="earliest")
        told = [next(stream) for _ in range(4)][1:]  # the first is the hub's own
        stream.close()
        assert [(message.type, message.data) for message in told] == [
            ("message", '["Unknown"]'),
            ("t", "x"),
            ("message", '{"n":"Unknown"}'),
        ]
        with Client(server.url) as plain, pytest.raises(InvalidEvent, match="json_encoder="):
            plain.publish("a", Unknown())
