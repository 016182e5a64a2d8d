"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from plugin_runs import run

ROOT = Path(__file__).parents[2]

SUITE = """
import asyncio
import pytest

def test_on_each_broker(ssepool_hub, sse, sse_clock):
    async def main():
        async with ssepool_hub as hub, sse(hub.app, "/events?topic=a") as s:
            await hub.publish("a", "x")
            await s.expect(data="x")
            await sse_clock.advance(15)
            await s.expect_heartbeat()
    asyncio.run(main())

@pytest.mark.parametrize("ssepool_broker", ["sqlite"], indirect=True)
def test_on_one(ssepool_broker):
    assert ssepool_broker.startswith("sqlite:///")
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "passes"),
    [
        ([], "", ["test_on_each_broker[memory]"]),
        (["--ssepool-broker=memory", "--ssepool-broker=sqlite"], "", ["each_broker[memory]", "each_broker[sqlite]"]),
        ([], "sqlite, memory://", ["test_on_each_broker[memory]", "test_on_each_broker[sqlite]"]),
    ],
)
def test_tests_run_on_each_broker_that_is_named_without_a_plugin_for_asyncio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: str, passes: list[str]
) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    if environment:
        monkeypatch.setenv("SSEPOOL_TEST_BROKERS", environment)
    code, said = run(tmp_path, "-vv", *arguments, plugins=())
    assert code == 0, said
    assert said.count("PASSED") == len(passes) + 1
    assert all(f"{name} PASSED" in said for name in passes)


def test_it_loads_nothing_before_it_is_used() -> None:
    code = "import pytest, sys; had = set(sys.modules); import ssepool.testing.plugin; print(set(sys.modules) - had)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.count("ssepool") == 3  # the packages and the plugin
    assert done.stdout.count(",") == 2


def test_pytest_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"ssepool": "ssepool.testing.plugin"}
