"""docs/testing.md: its suites are run as they stand there, by a pytest that has nothing but the plugin and anyio's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plugin_runs import run

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs" / "testing.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_suites_of_the_documentation_pass_and_none_of_them_waits(suites: Path) -> None:
    code, said = run(suites, "--durations=0", "-vv")
    assert code == 0, said
    assert re.search(r"\b12 passed", said), said
    steps = re.findall(r"^([\d.]+)s (?:call|setup|teardown)", said, re.MULTILINE)
    assert len(steps) >= 12
    # Together under a second where the machine has nothing else to do; one that really waited for a heartbeat would
    # take the fifteen that pass in it.
    assert sum(map(float, steps)) < 10, said


BREAKAGES = {
    'type="said")}': ('type="sad")}', "expected the event 'said' with the data {'text': 'hello'}, but what came is"),
    "heartbeat_interval=15": ("heartbeat_interval=150", "expected a comment, but it has not come within 5 virtual s"),
    "max_lifetime=600": ("max_lifetime=900", "expected the end of the stream with the reason 'lifetime', but it has"),
    ", lag_events=100": ("", "expected the event 'ssepool.gap'"),
    "return hub.response(request": ("raise LookupError(room)\n        hub.response(request", "LookupError: 1"),
    "lifespan=hub.lifespan": ("", "the hub is not open: give your application lifespan=hub.lifespan"),
}
"""What is broken in the chat, how, and what its suite says then."""


def test_a_broken_application_fails_with_a_message_that_tells_why(suites: Path) -> None:
    chat, tests = (suites / "chat.py").read_text(), (suites / "test_chat.py").read_text()
    for number, (broken, (by, _)) in enumerate(BREAKAGES.items()):
        assert broken in chat
        (suites / f"chat{number}.py").write_text(chat.replace(broken, by))
        (suites / f"test_chat{number}.py").write_text(tests.replace("from chat import", f"from chat{number} import"))
    code, said = run(suites, "--tb=short", *[f"test_chat{number}.py" for number in range(len(BREAKAGES))])
    assert code == 1, said
    for number, (_, message) in enumerate(BREAKAGES.values()):
        assert f"FAILED test_chat{number}.py::" in said
        assert message in said, said
