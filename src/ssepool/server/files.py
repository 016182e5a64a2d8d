"""Files: how many descriptors this process may have. Every client takes one."""

from __future__ import annotations

import logging
import sys

from ssepool.runtime.files import SPARE_DESCRIPTORS

logger = logging.getLogger("ssepool")


def raise_limit(clients: int) -> None:
    """Raise the soft limit as far as the hard one allows, and say so if that is too little for so many clients."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (ValueError, OSError) as error:  # macOS refuses what is "unlimited"
        logger.debug("the limit on open files stays at %d: %s", soft, error)
    if soft != resource.RLIM_INFINITY and clients + SPARE_DESCRIPTORS > soft:
        logger.warning(
            "a pool that may hold and queue %d clients needs %d file descriptors, and the limit is %d (ulimit -n)",
            clients,
            clients + SPARE_DESCRIPTORS,
            soft,
        )
