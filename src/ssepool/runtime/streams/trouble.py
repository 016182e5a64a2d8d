"""Trouble: why the broker cannot be followed at the moment, of all that a hub does with it."""

from __future__ import annotations

import logging

from ssepool.errors import BrokerError

logger = logging.getLogger("ssepool")


class Trouble:
    """The errors of the tasks that follow a broker, each until that task has done its work again.

    A broker may answer one of them and fail the other for good; so a success ends no trouble but that of its own task.
    The log says when the first begins, and when the last is over.
    """

    def __init__(self, url: str) -> None:
        """`url` is the broker's, for messages."""
        self._url = url
        self._errors: dict[str, BrokerError] = {}

    @property
    def error(self) -> BrokerError | None:
        """Why the broker cannot be followed; None if it can."""
        return next(iter(self._errors.values()), None)

    def meet(self, task: str, error: Exception) -> None:
        """This task has failed. What is no `BrokerError` is a defect, and is logged in full once for each trouble."""
        if not isinstance(error, BrokerError):
            if task not in self._errors:
                logger.error("the %s of %s failed; trying again", task, self._url, exc_info=error)
            error = BrokerError(f"{self._url}: the {task} failed: {type(error).__name__}: {error}")
        if not self._errors:
            logger.error("the broker is away: %s", error)
        self._errors[task] = error

    def end(self, task: str) -> None:
        """This task has done its work."""
        if self._errors.pop(task, None) is not None and not self._errors:
            logger.warning("the broker is back: %s", self._url)
