"""What a stranger writes does nothing to the terminal of whoever looks at it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rich.console import Console

from ssepool.cli import notes, publish, stats, subscribe, topics
from ssepool.client import Message

NASTY = "\x1b[2J\x1b]0;owned\x07\x9b31m\x08\x7f\u202eabc\u2066\ufeff\u200b\x00 [bold]b[/bold] [link=http://a]c[/link]"
LINES = "one\r\ntwo\rthree\x85four\u2028five"


def harmless(text: str) -> None:
    for char in text:
        assert char.isprintable() or char == "\n", repr(text)


PAGE = topics._Page([topics._Row(NASTY + LINES, 1, 2, 3, 4, 0.5)], None, [])

SHOWN: dict[str, Callable[[], object]] = {
    "an event": lambda: subscribe._show_in_colour()(Message(NASTY, NASTY + LINES, NASTY)),
    "an event as JSON": lambda: subscribe._show_json(Message(NASTY, NASTY + LINES, NASTY)),
    "a gap": lambda: subscribe._explain(Message("ssepool.gap", json.dumps({"requested": NASTY, "reason": LINES}), "")),
    "a goodbye": lambda: subscribe._explain(Message("ssepool.close", json.dumps({"reason": NASTY + LINES}), "")),
    "a place in the queue": lambda: subscribe._explain(Message("ssepool.queued", json.dumps({"position": NASTY}), "")),
    "a refusal": lambda: notes.note(f"the hub says {NASTY}{LINES}"),
    "ids of a strange hub": lambda: publish._print_ids([NASTY, LINES], False),
    "topics of a strange hub": lambda: print("\n".join(topics._plain(PAGE))),
    "topics in a table": lambda: Console(width=300).print(topics._table(PAGE)),
    "numbers of a strange hub": lambda: print(stats._plain({"node": NASTY, "pool": {NASTY: LINES}})),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_nothing_that_a_terminal_obeys_is_shown(show: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    show()
    shown = "".join(capsys.readouterr())
    harmless(shown)
    assert "abc" in shown or "three" in shown


@pytest.mark.parametrize("text", [LINES, NASTY])
def test_a_note_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    notes.note(text)
    assert capsys.readouterr().err.count("\n") == 1


def test_numbers_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=300).print(stats._tables({"node": NASTY, NASTY: {"a": 1}}))
    shown = capsys.readouterr().out
    harmless(shown)
    assert "[bold]b[/bold]" in shown


def test_json_of_an_event_is_still_that_event(capsys: pytest.CaptureFixture[str]) -> None:
    subscribe._show_json(Message("t", NASTY + LINES + "\U0001f600é\U000e0001", "1"))
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"type": "t", "data": NASTY + LINES + "\U0001f600é\U000e0001", "id": "1"}
    assert "\U0001f600é" in shown


@pytest.mark.parametrize("data", ["[]", "1", "null", '"x"', "{"])
def test_an_event_of_a_strange_hub_ends_no_subscription(data: str) -> None:
    subscribe._explain(Message("ssepool.gap", data, ""))
