"""Authorize: grants from a function of the application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from ssepool.core.grant import Grant
from ssepool.core.topics import shown
from ssepool.errors import InvalidGrant
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import LATER, _Later

AuthorizeFunction = Callable[[Asking], Grant | Awaitable[Grant | None] | None]
"""`Hub(authorize=function)`: returns a grant, or None for a request that it does not know; or raises. It may await."""


class Authorize:
    """A source: asks the application's function about each request."""

    def __init__(self, function: AuthorizeFunction) -> None:
        """`function` may be of either kind, `def` or `async def`."""
        self._function = function
        self._waits = inspect.iscoroutinefunction(function)

    def at_once(self, asking: Asking) -> Grant | Literal[_Later.LATER] | None:
        """See `Source`. Raises what the function raises, and `InvalidGrant` for something else than a grant."""
        if self._waits:
            return LATER
        found = self._function(asking)
        if inspect.isawaitable(found):  # a partial, or an object that is called: only now is it known
            self._waits = True
            _close(found)
            return LATER
        return _checked(found)

    async def in_time(self, asking: Asking) -> Grant | None:
        """See `Source`."""
        found = self._function(asking)
        return _checked(await found if inspect.isawaitable(found) else found)


def _checked(found: Any) -> Grant | None:
    if found is not None and not isinstance(found, Grant):
        raise InvalidGrant(f"authorize returned {shown(found)}; it takes a Grant, or None for who is not known")
    return found


def _close(awaitable: Any) -> None:
    if hasattr(awaitable, "close"):
        awaitable.close()
