"""The worker class for gunicorn whose streams are on detached sockets: `gunicorn app:app -k ssepool.gunicorn.Worker`.

Takes the package `uvicorn-worker` (`pip install 'ssepool[gunicorn]'`).
"""

from __future__ import annotations

from typing import Any, ClassVar

try:
    from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped,import-not-found,unused-ignore]
except ModuleNotFoundError as error:
    raise ImportError(
        f"ssepool.gunicorn.Worker takes the packages gunicorn and uvicorn-worker, and there is no {error.name}: "
        "pip install 'ssepool[gunicorn]'"
    ) from error

from ssepool.uvicorn import Protocol


class Worker(UvicornWorker):  # type: ignore[misc,unused-ignore]
    """uvicorn's worker with the protocol class of `ssepool.uvicorn`.

    With several workers the hub takes a broker that they share: each is a process with a hub of its own. Set
    `--graceful-timeout` as long as your own requests may take; streams are sent away at once.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**UvicornWorker.CONFIG_KWARGS, "http": Protocol}
    """What uvicorn is configured with beside gunicorn's settings."""
