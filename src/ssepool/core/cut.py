"""Cut: how far a topic's events have been dropped."""

from __future__ import annotations

from typing import NamedTuple


class Cut(NamedTuple):
    """How far the events of one topic have been dropped: who comes with a place before it may have missed one."""

    public: int = 0
    """The position of the newest event dropped that was not private; 0 if there was none."""
    private: int = 0
    """The position of the newest private event dropped; 0 if there was none."""

    @property
    def newest(self) -> int:
        """The position of the newest event dropped."""
        return max(self)

    def joined(self, other: Cut) -> Cut:
        """What is known with both. Events are dropped in several processes, and none takes back what another says."""
        return Cut(max(self.public, other.public), max(self.private, other.private))

    def until(self, end: int) -> Cut:
        """What is left of it where all behind a position is lost: earlier ones may have been dropped too."""
        return Cut(min(self.public, end), min(self.private, end))
