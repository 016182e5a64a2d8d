"""Programs that some tests drive and that not every machine has.

A test calls `require("chromium")` and gets a path. Where the program is missing the test is skipped; with `CI=true`
it fails, so that a green run has left nothing out. Run as a script, this module tells `scripts/test` what is missing:
`tools.py packages` prints the names of Debian packages, `tools.py missing` a line for each program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import playwright
import pytest

NODE_MODULES = Path(__file__).parent / "node_modules"
ARQ_PACKAGES = Path(__file__).parent / "arq_packages"
"""arq and the newest redis-py that it takes, which is older than ours."""
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

CHROMIUM_FLAGS = (
    "--no-sandbox",  # it does not start as root otherwise
    "--disable-gpu",
    # No talk to anything but the test's own server:
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@dataclass(frozen=True)
class Tool:
    """A program by the names or paths that it may have, the Debian package that brings it, what is tested with it."""

    names: tuple[str, ...]
    package: str
    tests: str
    root: bool = False
    answers: bool = False  # it may be there and lack a library: it has to answer `--version`
    driver: str | None = None  # another tool, without which this one is of no use

    def find(self) -> str | None:
        """The program's path; `None` if it is not installed, or if this user may not use it."""
        if self.root and os.geteuid() != 0:
            return None
        found = next(filter(None, (shutil.which(name, path=PATH) for name in self.names)), None)
        if found and self.answers and subprocess.run([found, "--version"], capture_output=True).returncode != 0:
            return None
        return found


def _versions_of(program: str) -> list[str]:
    """Debian has programs of PostgreSQL where no PATH leads; the newest version first."""
    found = Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
    return [str(path) for path in sorted(found, key=lambda path: -float(path.parts[4]))]


TOOLS = {
    "chromium": Tool(
        (
            "chromium",
            "chromium-browser",
            "google-chrome",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
            "/Applications/Chromium.app/Contents/MacOS/Chromium",
        ),
        "chromium",
        "the demo and EventSource in a browser",
        driver="playwright",
    ),
    "playwright": Tool(
        (str(Path(playwright.__file__).parent / "driver" / "node"),),
        "libatomic1",  # which the Node.js inside the Python package needs
        "the demo and EventSource in a browser",
        answers=True,
    ),
    "node": Tool(("node",), "nodejs", "the clients of tests/package.json"),
    "npm": Tool(("npm",), "npm", "the clients of tests/package.json"),
    "nginx": Tool(("nginx",), "nginx-light", "deploy/nginx"),
    "caddy": Tool(("caddy",), "caddy", "deploy/caddy"),
    "haproxy": Tool(("haproxy",), "haproxy", "deploy/haproxy"),
    "openssl": Tool(("openssl",), "openssl", "the proxies of deploy/ with TLS"),
    "systemd-analyze": Tool(("systemd-analyze",), "systemd", "deploy/systemd"),
    "go": Tool(("go", "/usr/local/go/bin/go"), "golang-go", "r3labs/sse, a client in Go"),
    "curl": Tool(("curl",), "curl", "curl -N"),
    "redis-server": Tool(("redis-server",), "redis-server", "the broker on Redis"),
    "nats-server": Tool(("nats-server",), "nats-server", "the broker on NATS JetStream"),
    "postgres": Tool(("postgres", *_versions_of("postgres")), "postgresql", "the broker on PostgreSQL"),
    "initdb": Tool(("initdb", *_versions_of("initdb")), "postgresql", "the broker on PostgreSQL"),
    "pg_basebackup": Tool((*_versions_of("pg_basebackup"), "pg_basebackup"), "postgresql", "a replica of PostgreSQL"),
    "pg_dump": Tool((*_versions_of("pg_dump"), "pg_dump"), "postgresql", "a backup of PostgreSQL"),
    "psql": Tool((*_versions_of("psql"), "psql"), "postgresql", "a backup of PostgreSQL"),
    "ip": Tool(("ip",), "iproute2", "peers behind a dropped link (Linux, as root)", root=True),
    "nft": Tool(("nft",), "nftables", "peers whose packets are dropped (Linux, as root)", root=True),
    "mount": Tool(("mount",), "mount", "a full disk (Linux, as root)", root=True),
}


def missing() -> Iterator[tuple[str, Tool]]:
    """The programs that are not here, by name."""
    return ((name, tool) for name, tool in TOOLS.items() if tool.find() is None)


def require(name: str) -> str:
    """The path of a program of `TOOLS`, or of the folder of a package that `tests/package.json` names.

    Where it is missing the test is skipped, or fails if `CI=true`.
    """
    if name in TOOLS:
        if driver := TOOLS[name].driver:
            require(driver)
        found, how = TOOLS[name].find(), f"Debian package {TOOLS[name].package}"
    elif name == "arq":
        found, how = str(ARQ_PACKAGES) if ARQ_PACKAGES.is_dir() else None, "requirements/arq.txt in tests/arq_packages"
    else:
        folder = NODE_MODULES / name
        found, how = str(folder) if folder.is_dir() else None, "npm ci in tests/"
    if found is not None:
        return found
    lacking(f"{name} is not here ({how})")


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it if `CI=true`."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def main(question: str) -> None:
    """Answer `scripts/test`."""
    if question == "packages":
        print(" ".join(tool.package for _, tool in missing()))
    else:
        for name, tool in missing():
            print(f"==> not here: {name}, without which these tests cannot run: {tool.tests}")


if __name__ == "__main__":
    main(sys.argv[1])
