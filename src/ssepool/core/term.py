"""Term: how long a grant lets a stream go on."""

from __future__ import annotations

import msgspec

from ssepool.core.slot import NEVER
from ssepool.core.states import Reason

WARN_SECONDS = 60.0
"""Seconds ahead of the end of its grant at which a client is told of it."""
WARN_SHARE = 0.1
"""The share of its life that is left for that, if this is less."""

JITTER_SHARE = 0.05
"""The share of its life by which a stream ends ahead of its grant at most, so that clients whose grants run out
together do not come back together."""
MAX_JITTER_SECONDS = 10.0
"""Seconds of that at most."""

AGE_JITTER_SHARE = 0.1
"""The share of `max_grant_age` by which a stream ends earlier at most."""


class Term(msgspec.Struct, frozen=True, gc=False):
    """When a stream has to end for its grant's sake, in seconds of the pool's clock."""

    ends_at: float
    """When it ends."""
    reason: Reason
    """Why: `token_expired`, or `lifetime` if the grant is only to be asked for again."""
    warns_at: float = NEVER
    """When the client is told that its grant runs out."""
    expires_at: float = NEVER
    """When the grant runs out: a little later than the stream ends."""

    def is_over(self, now: float) -> bool:
        """Whether the stream may go on, or open, no more."""
        return self.ends_at <= now


ENDLESS = Term(NEVER, Reason.LIFETIME)
"""No end for the sake of a grant."""


def term_of(life: float, max_age: float, *, now: float, look: float, chance: float) -> Term:
    """The term of a grant that runs out in `life` seconds and is to be asked for again after `max_age` seconds, either
    `NEVER`.

    The stream ends ahead of that and never later: its end is seen in a look up to `look` seconds late, and `chance`, a
    number from 0 to 1, takes some of its life.
    """
    asked_again_at = now + max_age * (1 - AGE_JITTER_SHARE * chance)
    if life == NEVER:
        return Term(asked_again_at, Reason.LIFETIME)
    expires_at = now + life
    ends_at = expires_at - look - min(JITTER_SHARE * max(life, 0.0), MAX_JITTER_SECONDS) * chance
    warns_at = ends_at - min(WARN_SECONDS, WARN_SHARE * max(ends_at - now, 0.0))
    if asked_again_at < ends_at:
        return Term(asked_again_at, Reason.LIFETIME, warns_at, expires_at)
    return Term(ends_at, Reason.TOKEN_EXPIRED, warns_at, expires_at)
