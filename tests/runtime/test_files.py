"""Files: what the limit on descriptors allows."""

from __future__ import annotations

import sys

import pytest

from ssepool.runtime.files import SPARE_DESCRIPTORS, max_clients

if sys.platform == "win32":
    pytest.skip("there is no such limit", allow_module_level=True)

import resource


@pytest.mark.parametrize(
    ("soft", "clients"),
    [(1000, 1000 - SPARE_DESCRIPTORS), (SPARE_DESCRIPTORS, 0), (10, 0), (resource.RLIM_INFINITY, None)],
)
def test_the_limit_that_holds_now_less_a_spare_is_for_clients(
    soft: int, clients: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, 10**6))
    assert max_clients() == clients
