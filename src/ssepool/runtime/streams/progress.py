"""Progress: how far a log has come with what its broker has, and when the tail is to be asked again."""

from __future__ import annotations

MAX_BEHIND_SECONDS = 10.0
"""Seconds that what the broker has may take to come here; a hub that misses it for longer is not ready."""

MAX_PATIENCE_LOOKS = 8
"""Looks for which a tail that gives nothing is left alone at most, before it is begun anew."""


class Progress:
    """What a log still lacks of what its broker has named.

    A tail that gives nothing though there is more is begun anew. It is given twice as long each time, since one may
    need more than a look to connect.
    """

    def __init__(self, now: float) -> None:
        """`now` is the hub's clock, in seconds."""
        self._goal, self._since = 0, now
        self._behind: int | None = None
        self._looks = 0
        self._patience = 1
        self.stalls = 0
        """How often in a row `look` has said that nothing comes."""

    def late(self, position: int, now: float) -> float:
        """Seconds for which something has been missing at this position that the broker has; 0 if nothing is."""
        return now - self._since if position < self._goal else 0.0

    def begin(self, position: int, now: float) -> None:
        """The log goes on behind this position. What the broker has named further on may be of a lost history."""
        if position < self._goal:
            self._goal, self._since = position, now
        self._behind = None

    def look(self, position: int, newest: int, now: float, *, is_crowded: bool) -> bool:
        """Note that the broker has entries up to `newest`. True if it is time to do something about the tail: nothing
        has come behind this position for long, and not because it waits for delivery (`is_crowded`)."""
        if position >= self._goal:
            self._goal, self._since = newest, now
        if is_crowded or newest <= position or position != self._behind:
            self._behind = position if newest > position and not is_crowded else None
            self._looks, self._patience, self.stalls = 0, 1, 0
            return False
        self._looks += 1
        if self._looks < self._patience:
            return False
        self._looks, self._patience = 0, min(2 * self._patience, MAX_PATIENCE_LOOKS)
        self.stalls += 1
        return True
