"""What holds for each link in each test: its state and what it has agree, after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parts import check_promises
from ssepool.runtime.streams.link import Link

STEPS = ("push", "send", "follow", "beat", "close", "part", "finish", "end", "leave_feed", "take", "stall", "go_on")


@pytest.fixture(autouse=True)
def every_link_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check each link after each outermost step: inside one, a link may be between two states."""
    inside: set[int] = set()

    def checked(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(link: Link, *args: Any, **kwargs: Any) -> Any:
            if id(link) in inside:
                return step(link, *args, **kwargs)
            inside.add(id(link))
            try:
                result = step(link, *args, **kwargs)
            finally:
                inside.discard(id(link))
            check_promises(link)
            return result

        return run

    for name in STEPS:
        monkeypatch.setattr(Link, name, checked(getattr(Link, name)))
    yield
