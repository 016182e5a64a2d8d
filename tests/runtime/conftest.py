"""What holds for each link in each test: its state and what it has agree, after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssepool.core.states import LinkState
from ssepool.runtime.streams.link import Link

STEPS = ("push", "send", "follow", "beat", "close", "part", "finish", "end", "leave_feed", "take", "stall", "go_on")


def check(link: Link) -> None:
    """What each state promises."""
    if link.state is LinkState.NEW:
        assert link.feed is None
        assert link.replay is None
    elif link.state is LinkState.FOLLOWING:
        assert link.feed is not None
        assert (link.replay, link.rest, link.finishing) == (None, None, None)
        assert not (link.outbox or link.held or link.stalled)
    elif link.state is LinkState.ENDING:
        assert (link.feed, link.replay) == (None, None)
    elif link.state is LinkState.ENDED:
        assert (link.feed, link.replay, link.rest, link.held, link.owner, link.slot) == (None,) * 6
    assert (link.finishing is not None) == (link.state is LinkState.FINISHING) or link.is_leaving
    assert link.feed is None or link in link.feed.members


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
            check(link)
            return result

        return run

    for name in STEPS:
        monkeypatch.setattr(Link, name, checked(getattr(Link, name)))
    yield
