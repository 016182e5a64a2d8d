"""Fixtures of the tests that look at what patterns cost."""

from __future__ import annotations

from typing import Any

import pytest
from urlpattern import URLPattern

from ssepool.core import topics


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is compiled during the test, in order."""
    seen: list[Any] = []

    def counted(source: Any) -> URLPattern:
        seen.append(source)
        return URLPattern(source)

    monkeypatch.setattr(topics, "URLPattern", counted)
    return seen
