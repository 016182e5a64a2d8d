"""Administration of real processes: a Unix socket beside the port, the commands that find it, and no way in at the
port."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live import DEADLINE, LiveServer, Stream, serve_command, wait_for

ADMIN_ROUTES = (
    ("GET", "/connections"),
    ("DELETE", "/connections?user=u1"),
    ("GET", "/connections/x-1-1"),
    ("DELETE", "/connections/x-1-1"),
    ("GET", "/pool"),
    ("PATCH", "/pool"),
    ("POST", "/pool/drain"),
    ("GET", "/cluster"),
    ("GET", "/metrics"),
    ("GET", "/audit"),
    ("GET", "/revocations"),
    ("POST", "/revocations"),
    ("GET", "/dashboard"),
    ("GET", "/dashboard/dashboard.js"),
)


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this user alone; that of pytest has too long a name for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="ssepool-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))  # where a socket of that port may be left of somebody who was killed
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["detached", "plain", "workers"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """How the hub is started: each way of accepting."""
    ways = {
        "detached": (),
        "plain": ("--no-detach",),
        "workers": ("--workers", "2", "--broker", f"sqlite:///{tmp_path}/events.db"),
    }
    return ("--public-topics", "*", *ways[request.param])


def command(*args: str, code: int = 0) -> str:
    """What an `ssepool ...` on this machine prints, which must end with this code."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SSEPOOL_")}
    words = [sys.executable, "-m", "ssepool", *args]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def numbers(port: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("stats", "--json", "--port", str(port)))
    return found


def test_commands_find_the_hub_by_its_port_and_need_no_password(flags: tuple[str, ...]) -> None:
    with serve_command(*flags) as server:
        port = str(server.port)
        streams = [Stream(server, topic).opened() for topic in ("a", "b", "b", "c")]
        assert numbers(server.port)["pool"]["open"] == 4
        assert command("kick", streams[0].connection, "--port", port) == "1\n"
        assert command("kick", "--topic", "b", "--seconds", "0", "--port", port) == "2\n"
        for stream in streams[:3]:
            assert stream.to_end().of_type("ssepool.close")[0]["reason"] == "kicked"
        assert "there is no connection" in command("kick", streams[0].connection, "--port", port, code=1)
        server.wait_pool(open=1, closing=0)
        command("drain", "--seconds", "0", "--port", port)
        assert numbers(server.port)["pool"]["state"] == "draining"
        assert streams[3].to_end().of_type("ssepool.close")[0]["reason"] == "drained"
        for stream in streams:
            stream.close()


def test_the_socket_is_for_its_user_alone_and_gone_with_the_hub(flags: tuple[str, ...], runtime_folder: Path) -> None:
    with serve_command(*flags) as server:
        path = runtime_folder / f"ssepool-{server.port}.sock"
        assert server.admin == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == os.geteuid()
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert list(runtime_folder.iterdir()) == []


OPEN = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root and setpriv")
def test_another_user_cannot_open_it(runtime_folder: Path) -> None:
    with serve_command("--public-topics", "*") as server:
        runtime_folder.chmod(0o755)  # so that it is the socket's own mode that decides
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        if python is None:
            pytest.skip("takes a Python that others may run")
        opening = [python, "-c", OPEN, server.admin]
        mine = subprocess.run(opening, capture_output=True, text=True, check=False, cwd="/")
        assert (mine.returncode, mine.stderr) == (0, "")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *opening]
        theirs = subprocess.run(nobody, capture_output=True, text=True, check=False, cwd="/")
        assert theirs.returncode != 0
        assert "PermissionError" in theirs.stderr


def test_a_hub_that_was_killed_does_not_keep_the_next_one_from_its_socket(flags: tuple[str, ...]) -> None:
    with serve_command(*flags) as server:
        path, port = server.admin, server.port
        if "--workers" in flags:
            workers = {int(each["pid"]) for each in numbers(port)["workers"]}
        server.stop(signal.SIGKILL)
        if "--workers" in flags:  # they end by themselves, having listened on the same socket
            wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), what="workers that end")
        assert Path(path).is_socket()
    with serve_command(*flags, port=port) as server:
        assert server.admin == path
        assert numbers(port)["pool"]["state"] == "open"


def test_two_hubs_of_two_ports_do_not_mix() -> None:
    with serve_command("--public-topics", "*") as one, serve_command("--public-topics", "*") as other:
        assert one.admin != other.admin
        names = {numbers(server.port)["node"] for server in (one, other)}
        assert len(names) == 2
        command("drain", "--no-wait", "--port", str(one.port))
        assert [numbers(server.port)["pool"]["state"] for server in (one, other)] == ["draining", "open"]


@pytest.mark.parametrize("access", [("--public-topics", "*"), ("--dev",)], ids=["public", "dev"])
def test_beside_a_unix_socket_for_clients_there_is_one_for_operators(
    access: tuple[str, ...], runtime_folder: Path
) -> None:
    from live import OverUnixSocket, running

    path = runtime_folder / "hub.sock"
    words = [sys.executable, "-m", "ssepool", "serve", *access, "--uds", str(path), "--port", "4321"]
    with running(words, r"serving on (unix:\S+)") as server:
        assert server.admin == str(runtime_folder / "ssepool-4321.sock")
        assert numbers(4321)["pool"]["open"] == 0
        public = OverUnixSocket(str(path))
        public.request("GET", "/pool")
        assert public.getresponse().status == (200 if access == ("--dev",) else 404)
        public.close()


def test_without_administration_there_is_no_socket(runtime_folder: Path) -> None:
    with serve_command("--public-topics", "*", "--admin", "none") as server:
        assert list(runtime_folder.iterdir()) == []
        assert "no hub of port" in command("stats", "--port", str(server.port), code=1)


def raw(server: LiveServer, request: bytes) -> int:
    """The status of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.sendall(request)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status


def test_nothing_of_administration_is_at_the_port_by_any_way_in(flags: tuple[str, ...]) -> None:
    with serve_command(*flags) as server:
        before = server.pool()
        found: dict[tuple[str, ...], int] = {}
        for method, path in ADMIN_ROUTES:
            body = b"{}"
            head = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            whole = f"{method} {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode() + body
            found[method, path, "whole"] = raw(server, whole)
            plain = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            found[method, path, "plain"] = raw(server, plain)
            absolute = plain.replace(path.encode(), b"http://127.0.0.1" + path.encode())
            found[method, path, "absolute"] = raw(server, absolute)
            found[method, path, "1.0"] = raw(server, plain.replace(b"HTTP/1.1", b"HTTP/1.0"))
            forwarded = plain.replace(b"Connection", b"X-Forwarded-For: 127.0.0.1\r\nConnection")
            found[method, path, "forwarded"] = raw(server, forwarded)
        assert {row: status for row, status in found.items() if status != 404} == {}
        assert server.pool()["state"] == before["state"] == "open"
        status, spec = server.operate("GET", "/openapi.json")
        assert status == 200
        documented = {
            path
            for path in spec["paths"]
            if path.startswith(("/connections", "/pool", "/audit", "/cluster", "/revocations"))
        }
        tried = {path.partition("?")[0].replace("x-1-1", "{id}") for _, path in ADMIN_ROUTES}
        assert documented and documented <= tried


def test_a_tunnel_reaches_the_dashboard_and_no_page_of_another_name_or_site_does() -> None:
    with serve_command("--public-topics", "*") as server:
        here = {"Host": "127.0.0.1:9000", "Origin": "http://127.0.0.1:9000"}
        assert server.operate("GET", "/dashboard", headers={"Host": "localhost:9000"})[0] == 200
        assert server.operate("PATCH", "/pool", {"size": 7}, here)[0] == 200
        foreign = {**here, "Origin": "https://evil.example"}
        assert server.operate("PATCH", "/pool", {"size": 8}, foreign)[0] == 403
        assert server.operate("GET", "/pool", headers={"Host": "evil.example:9000"})[0] == 421
        assert server.pool()["size"] == 7


def test_the_audit_log_is_a_file_that_all_workers_write(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    broker = ("--workers", "2", "--broker", f"sqlite:///{tmp_path}/events.db")
    with serve_command("--public-topics", "a", *broker, "--audit-log", str(path)) as server:
        for _ in range(3):
            assert server.request("GET", "/events?topic=b")[0] == 401
            command("drain", "--no-wait", "--port", str(server.port))
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted((each["action"], each["allowed"]) for each in entries if each["action"] != "metrics") == [
            *[("pool", True)] * 3,
            *[("subscribe", False)] * 3,
        ]
        status, answer = server.operate("GET", "/audit?limit=1000")
        assert status == 200
        assert sorted(answer["entries"], key=lambda each: each["time"]) == sorted(
            entries, key=lambda each: each["time"]
        )
