"""A password or a key is in no message, log line, answer or list of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from live import Stream, running, wait_for
from ssepool.config import HubConfig
from ssepool.errors import ConfigError
from ssepool.hub import Hub

SECRET = "hunter2"
URLS = {
    "refused": f"redis://u:{SECRET}@127.0.0.1:1/0",
    "refused, a token": f"nats://{SECRET}@127.0.0.1:1",
    "refused by PostgreSQL": f"postgres://u:{SECRET}@127.0.0.1:1/db",
    "a wrong port": f"redis://:{SECRET}@127.0.0.1:bad/0",
    "a wrong port of PostgreSQL": f"postgres://u:{SECRET}@127.0.0.1:bad/db",
    "an unknown scheme": f"kafka://u:{SECRET}@h",
    "a server of SQLite": f"sqlite://u:{SECRET}@h/x",
    "parameters of SQLite": f"sqlite:///x?password={SECRET}",
    "a parameter": f"redis://127.0.0.1:1/0?password={SECRET}",
    "not escaped": f"redis://u:{SECRET}#/x@127.0.0.1:1/0",
    "no address": f"redis://u:{SECRET}@[::1/0",
    "no slashes": f"redis:u:{SECRET}@127.0.0.1",
    "one slash": f"redis:/u:{SECRET}@127.0.0.1",
    "nothing else": SECRET,
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_hub_that_does_not_start_tells_no_password(url: str) -> None:
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", "0", "--broker-timeout", "0.5"]
    ended = subprocess.run(
        command, env={**os.environ, "SSEPOOL_BROKER": url}, capture_output=True, text=True, timeout=50
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2)
    assert "ssepool: " in said
    assert SECRET not in said and "Traceback" not in said


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_configuration_is_shown_without_its_secrets(url: str) -> None:
    if url != SECRET:  # there is no telling what that is
        assert SECRET not in repr(HubConfig(broker=url, cluster_key=SECRET))
    try:
        hub = Hub(HubConfig(broker=url, cluster_key=SECRET))
    except ConfigError as error:
        assert SECRET not in str(error)
    else:
        assert SECRET not in f"{hub!r} {vars(hub)!r} {hub.parts.engine.log.broker.url}"


def test_a_key_that_is_none_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        HubConfig(cluster_key=SECRET.encode())  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_a_password_in_a_flag_is_warned_of() -> None:
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", "0", "--broker", f"kafka://u:{SECRET}@h"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=50).stderr
    assert "--broker is in the list of processes" in said
    assert SECRET not in said


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] + [deeper for child in found for deeper in children(int(child))]


def test_nothing_that_is_running_shows_a_secret(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", "0", "--workers", "2"]
    env = {"SSEPOOL_BROKER": f"sqlite:///{quote(str(tmp_path / 'events.db'))}", "SSEPOOL_CLUSTER_KEY": SECRET}
    with running(command, r"serving on (http\S*)", env) as server, Stream(server, "a") as stream:
        stream.opened()
        for path in ("/pool", "/cluster", "/metrics", "/connections", "/openapi.json", "/dashboard", "/nothing"):
            assert SECRET not in str(server.request("GET", path))
        workers = wait_for(lambda: children(server.process.pid))
        for pid in (server.process.pid, *workers):
            assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0
        assert SECRET.encode() not in stream.raw
        server.stop()
        assert SECRET not in "".join(server.log)
