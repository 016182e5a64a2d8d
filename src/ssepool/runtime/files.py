"""Files: how many clients this process may have descriptors for. Every client takes one."""

from __future__ import annotations

import sys

SPARE_DESCRIPTORS = 64
"""Descriptors for all that is not a client: listeners, logs, the event loop, requests to publish."""


def max_clients() -> int | None:
    """How many clients the limit on open files allows; None where there is no limit, or none that is known."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(0, soft - SPARE_DESCRIPTORS)
