"""The proxies of `deploy/`, started from the very files there, with only addresses, paths and time-outs replaced."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from live import wait_for
from tools import require

DEPLOY = Path(__file__).parents[2] / "deploy"
SILENCE = 2.0
"""Seconds that the proxies bear silence here, instead of the minutes in their files."""


@dataclass(frozen=True)
class Place:
    """What a proxy of a test needs to know: its folder, its ports, those of its nodes, its certificate."""

    folder: Path
    port: int
    plain_port: int
    nodes: tuple[int, ...]
    chain: Path
    key: Path

    def configure(self, file: str, *replacements: tuple[str, str]) -> Path:
        """A file of `deploy/` with its nodes and some other things replaced; each must be there."""
        text = (DEPLOY / file).read_text("utf-8")
        nodes = [(f"ssepool-{number}:8000", f"127.0.0.1:{port}") for number, port in enumerate(self.nodes, 1)]
        for old, new in [*nodes, *replacements]:
            assert old in text, f"{file} has no {old!r}"
            text = text.replace(old, new)
        made = self.folder / Path(file).name
        made.write_text(text, "utf-8")
        return made


def nginx(place: Place) -> list[str]:
    include = place.configure(
        "nginx/ssepool.conf",
        ("    listen [::]:80;\n", ""),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{place.plain_port};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{place.port} ssl http2;"),
        ("/etc/nginx/tls/fullchain.pem", str(place.chain)),
        ("/etc/nginx/tls/privkey.pem", str(place.key)),
        ("fail_timeout=5s", "fail_timeout=1s"),
        ("proxy_read_timeout 120s;", f"proxy_read_timeout {SILENCE:g}s;"),
    )
    temporary = "".join(f"{name}_temp_path {place.folder}/{name};" for name in TEMPORARY)
    main = place.folder / "nginx.conf"
    main.write_text(
        f"daemon off; worker_processes 2; pid {place.folder}/nginx.pid; error_log stderr warn;"
        f"events {{ worker_connections 1024; }} http {{ access_log off; {temporary} include {include}; }}"
    )
    return [require("nginx"), "-e", "stderr", "-c", str(main)]


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def caddy(place: Place) -> list[str]:
    file = place.configure(
        "caddy/Caddyfile",
        ("lb_try_duration 2s", "lb_try_duration 500ms"),
        ("{\n\tgrace_period", "{\n\tadmin off\n\tauto_https disable_redirects\n\tgrace_period"),
        (
            "\nevents.example.com {",
            f"\nhttps://localhost:{place.port}, https://127.0.0.1:{place.port} {{\n\ttls {place.chain} {place.key}",
        ),
    )
    return [require("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


def haproxy(place: Place) -> list[str]:
    pair = place.folder / "ssepool.pem"
    pair.write_text(place.chain.read_text() + place.key.read_text())
    file = place.configure(
        "haproxy/haproxy.cfg",
        ("maxconn 100000", "maxconn 1000"),  # it does not start where so many descriptors are not allowed
        ("bind :443", f"bind 127.0.0.1:{place.port}"),
        ("bind :80", f"bind 127.0.0.1:{place.plain_port}"),
        ("/etc/haproxy/tls/ssepool.pem", str(pair)),
        ("timeout client 120s", f"timeout client {SILENCE:g}s"),
        ("timeout server 120s", f"timeout server {SILENCE:g}s"),
    )
    return [require("haproxy"), "-db", "-f", str(file)]


PROXIES: dict[str, Callable[[Place], list[str]]] = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}
"""The command that runs each."""


@contextlib.contextmanager
def run(name: str, nodes: tuple[int, ...], folder: Path, certificate: tuple[Path, Path]) -> Iterator[str]:
    """A running proxy before nodes at these ports; its URL."""
    folder.mkdir(parents=True)
    place = Place(folder, free_port(), free_port(), nodes, *certificate)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            PROXIES[name](place), stdout=output, stderr=output, env={**os.environ, "HOME": str(folder)}
        )
    try:
        wait_for(lambda: process.poll() is not None or listens(place.port), what=f"{name} listens")
        assert process.poll() is None, log.read_text()
        yield f"https://127.0.0.1:{place.port}"
        assert process.poll() is None, log.read_text()
    except BaseException:
        print(log.read_text())  # pytest shows it with the failure
        raise
    finally:
        process.terminate()
        process.wait(10)


def check(name: str, place: Place) -> str:
    """What the proxy itself says against its configuration; "" if nothing."""
    command = PROXIES[name](place)
    checks = {"nginx": [*command, "-t"], "caddy": [command[0], "validate", *command[2:]], "haproxy": [*command, "-c"]}
    done = subprocess.run(
        checks[name], capture_output=True, text=True, timeout=20, env={**os.environ, "HOME": str(place.folder)}
    )
    said = done.stdout + done.stderr
    complaints = re.findall(r"(?im)^.*\[(?:warn|warning|alert|emerg)\].*$", said)
    return "\n".join(complaints) or ("" if done.returncode == 0 else said)


def free_port() -> int:
    """A port that nothing listens on, for programs that cannot be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that nobody but this test trusts, and its key."""
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = f"{require('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key
