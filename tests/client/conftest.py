"""The server that the clients are tested against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.stop()
