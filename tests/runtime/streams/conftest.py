"""A log that looks often, for tests that take real time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scripted_broker import Heard
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams import log as log_module


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in follower_module, log_module:
        monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(follower_module, "RETRY_SECONDS", (0.005, 0.02))


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    heard = Heard()
    await heard.log.open()
    yield heard
    await heard.log.close()
