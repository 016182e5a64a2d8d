"""Entrance: what uvicorn's own settings say of proxies and descriptors."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn

from ssepool.core.callers import Stage
from ssepool.runtime.entrance import entrance_of
from ssepool.runtime.files import max_clients


async def app(scope: Any, receive: Any, send: Any) -> None:
    scope["seen"] = scope["client"]


def config_of(**settings: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, lifespan="off", log_config=None, **settings)
    config.load()
    return config


CLIENTS: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "of a proxy": ({"forwarded_allow_ips": "10.0.0.7, 10.1.0.0/16"}, ("10.0.0.7", 5), ("2.2.2.2", 0)),
    "of a network": ({"forwarded_allow_ips": ["10.1.0.0/16"]}, ("10.1.0.7", 5), ("2.2.2.2", 0)),
    "of a stranger": ({"forwarded_allow_ips": "10.0.0.7"}, ("9.9.9.9", 5), ("9.9.9.9", 5)),
    "where all are trusted": ({"forwarded_allow_ips": "*"}, ("9.9.9.9", 5), ("2.2.2.2", 0)),
    "of a Unix socket": ({"forwarded_allow_ips": ""}, None, ("2.2.2.2", 0)),
    "of a Unix socket by its path": ({"forwarded_allow_ips": "/run/hub.sock"}, None, ("2.2.2.2", 0)),
    "without proxies": ({"proxy_headers": False, "forwarded_allow_ips": "*"}, None, None),
}


@pytest.mark.parametrize(("settings", "peer", "client"), CLIENTS.values(), ids=CLIENTS)
async def test_the_right_most_entry_that_no_proxy_has_counts(settings: dict[str, Any], peer: Any, client: Any) -> None:
    scope = {"type": "http", "client": peer, "headers": [(b"x-forwarded-for", b"1.1.1.1, 2.2.2.2")]}
    await entrance_of(config_of(**settings)).app(scope, None, None)
    assert scope["seen"] == client


def test_all_connections_of_a_server_have_the_same() -> None:
    one, other = config_of(), config_of()
    assert entrance_of(one) is entrance_of(one) is not entrance_of(other)


def test_half_of_the_descriptors_is_for_streams_and_no_answer_is_cut_off() -> None:
    limit = max_clients()
    assert limit is not None
    callers, gone = entrance_of(config_of()).callers, list[int]()
    most = min(limit - limit // 2, 10_000)
    places = [callers.enter("9.9.9.9", lambda number=number: gone.append(number)) for number in range(most)]  # type: ignore[misc]
    for place in places[1:]:
        place.move(Stage.ANSWER)
    assert gone == []
    for _ in range(3):
        callers.enter("9.9.9.9", lambda: gone.append(-1))
    assert gone == [0, -1, -1]
