"""Repeats: a thousand warnings a second are one line, and nothing else is left out."""

from __future__ import annotations

import logging

import pytest

from ssepool import Hub, ServerConfig
from ssepool.server.repeats import MAX_TEXTS, Repeats
from ssepool.server.server import Server


class Log:
    """A filter, and the lines that it lets through."""

    def __init__(self) -> None:
        self.now = 0.0
        self.repeats = Repeats(lambda: self.now)

    def say(self, text: str, level: int = logging.WARNING, *args: object) -> str | None:
        record = logging.LogRecord("uvicorn.error", level, "x.py", 1, text, args, None)
        return record.getMessage() if self.repeats.filter(record) else None


def test_a_warning_is_logged_once_a_second_and_says_how_often_it_came() -> None:
    log = Log()
    assert log.say("Invalid HTTP request received.") == "Invalid HTTP request received."
    for _ in range(1000):
        log.now += 0.0005
        assert log.say("Invalid HTTP request received.") is None
    log.now = 1.0
    assert log.say("Invalid HTTP request received.") == (
        "Invalid HTTP request received. (1000 more like this since the last one)"
    )
    log.now = 3.0
    assert log.say("Invalid HTTP request received.") == "Invalid HTTP request received."


def test_other_texts_and_other_levels_are_not_left_out() -> None:
    log = Log()
    assert [log.say("one"), log.say("two"), log.say("one")] == ["one", "two", None]
    for level in (logging.INFO, logging.ERROR, logging.CRITICAL):
        assert [log.say("fault", level), log.say("fault", level)] == ["fault", "fault"]


def test_arguments_make_no_other_text() -> None:
    log = Log()
    assert log.say("from %s", logging.WARNING, "a") == "from a"
    assert log.say("from %s", logging.WARNING, "b") is None


def test_it_remembers_few_texts() -> None:
    log = Log()
    for number in range(10 * MAX_TEXTS):
        assert log.say(f"text {number}")
    assert len(log.repeats._seen) <= MAX_TEXTS


def test_warnings_of_the_hub_too_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    server = Server(hub, hub.dev_app, ServerConfig(port=0))

    def flooded(sockets: object) -> None:
        for number in range(100):
            logging.getLogger("ssepool").warning("too many of %d", number)

    monkeypatch.setattr(server._uvicorn, "run", flooded)
    server.run()
    assert caplog.messages == ["too many of 0"]
