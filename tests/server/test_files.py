"""Files: the limit on descriptors, which a test must not change for all that run behind it."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from ssepool.runtime.files import SPARE_DESCRIPTORS
from ssepool.server.files import raise_limit

if sys.platform == "win32":
    pytest.skip("there is no such limit", allow_module_level=True)

import resource

NO_LIMIT = resource.RLIM_INFINITY


class Limits:
    """What the system says, and what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, error: Exception | None = None) -> None:
        self.set: list[tuple[int, tuple[int, int]]] = []
        self._error = error
        monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, which: int, limits: tuple[int, int]) -> None:
        if self._error is not None:
            raise self._error
        self.set.append((which, limits))


@pytest.mark.parametrize(("soft", "hard"), [(256, 5000), (5000, 5000), (256, NO_LIMIT)])
def test_the_limit_is_raised_as_far_as_it_goes(
    soft: int, hard: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(monkeypatch, soft, hard)
    raise_limit(5000 - SPARE_DESCRIPTORS)
    assert limits.set == [(resource.RLIMIT_NOFILE, (hard, hard))]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("soft", "hard", "error", "left"),
    [
        (256, 1000, None, 1000),
        (256, 10_000, ValueError("not allowed"), 256),
        (256, NO_LIMIT, OSError("not allowed"), 256),
    ],
)
def test_a_limit_that_is_too_low_is_told(
    soft: int,
    hard: int,
    error: Exception | None,
    left: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Limits(monkeypatch, soft, hard, error)
    with caplog.at_level(logging.WARNING, "ssepool"):
        raise_limit(left - SPARE_DESCRIPTORS)
        assert caplog.messages == []
        raise_limit(left - SPARE_DESCRIPTORS + 1)
    (message,) = caplog.messages
    assert f"needs {left + 1} file descriptors, and the limit is {left}" in message


def test_without_a_limit_there_is_nothing_to_be_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Limits(monkeypatch, NO_LIMIT, NO_LIMIT, OSError("not allowed"))
    raise_limit(10**9)
    assert caplog.messages == []


def test_on_windows_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(which: int) -> Any:
        raise AssertionError("there is no such limit")

    monkeypatch.setattr(resource, "getrlimit", asked)
    monkeypatch.setattr(sys, "platform", "win32")
    raise_limit(10)
