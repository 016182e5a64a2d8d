"""Trouble: what is said of a broker while one task or another fails."""

from __future__ import annotations

import pytest

from ssepool.errors import BrokerError
from ssepool.runtime.streams.trouble import Trouble


def test_trouble_lasts_until_each_task_that_failed_has_done_its_work(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("redis://there")
    assert trouble.error is None
    trouble.end("look")
    trouble.meet("look", BrokerError("no answer"))
    trouble.meet("tail", BrokerError("no right"))
    trouble.meet("look", BrokerError("no answer either"))
    assert str(trouble.error) == "no answer either"
    trouble.end("look")
    assert str(trouble.error) == "no right"
    trouble.end("look")
    trouble.end("tail")
    assert trouble.error is None
    assert caplog.messages == ["the broker is away: no answer", "the broker is back: redis://there"]


def test_a_defect_is_logged_in_full_once(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("redis://there")
    for _ in range(3):
        trouble.meet("tail", ZeroDivisionError("by 0"))
    assert str(trouble.error) == "redis://there: the tail failed: ZeroDivisionError: by 0"
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
