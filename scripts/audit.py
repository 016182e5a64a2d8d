"""Looks for known vulnerabilities in locked versions: `python -m scripts.audit requirements/ci.txt`.

Fails for one that another version mends, unless `requirements/ignored.txt` names it with a reason. One that no version
mends is told. Where the services that know cannot be asked, that is said loudly, and nothing fails: that they are away
says nothing of these versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IGNORED = Path(__file__).parents[1] / "requirements" / "ignored.txt"
"""A line each: the id of a vulnerability, a space, and why it does no harm here."""

SERVICES: tuple[tuple[str, ...], ...] = ((), ("--vulnerability-service", "osv"))
"""Arguments for one service after the other: the next is asked where one does not know all packages."""

MAX_SECONDS = 180.0
"""For the answer of one service."""

Run = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs pip-audit with these arguments; returns its exit code, output and errors."""


@dataclass
class Findings:
    """What is known of the packages."""

    fixable: list[str] = field(default_factory=list)
    """Vulnerabilities that another version mends, in words."""
    unfixable: list[str] = field(default_factory=list)
    """Those that none does."""
    unchecked: list[str] = field(default_factory=list)
    """Packages of which no service said anything."""
    why: str = ""
    """Why not, in the words of pip-audit."""


class Broken(Exception):
    """pip-audit did not do what it was told to: nothing that the network could be blamed for."""


def ignored(path: Path = IGNORED) -> dict[str, str]:
    """The vulnerabilities that do no harm here, each with the reason. Raises `Broken` for one without."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            id, _, reason = line.partition(" ")
            if not reason.strip():
                raise Broken(f"{path.name}: {id} has no reason behind it")
            found[id] = reason.strip()
    return found


def run(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run pip-audit itself."""
    command = [sys.executable, "-m", "pip_audit", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return 1, "", f"no answer in {MAX_SECONDS:g} s"
    return done.returncode, done.stdout, done.stderr


def audit(files: Sequence[str], allowed: dict[str, str], run: Run = run) -> Findings:
    """What the services know of the versions in these files. Raises `Broken`."""
    asked = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    for file in files:
        asked += ["--requirement", file]
    found, seen = Findings(), set()
    for service in SERVICES:
        code, output, errors = run([*asked, *service])
        try:
            packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
        except (ValueError, KeyError, TypeError):
            if code not in (0, 1) or "No module named" in errors:
                raise Broken(f"pip-audit ended with {code}: {_last(errors)}") from None
            found.why = _last(errors)
            continue
        found.unchecked = [package["name"] for package in packages if "skip_reason" in package]
        found.why = next((package["skip_reason"] for package in packages if "skip_reason" in package), "")
        for package in packages:
            for fault in package.get("vulns", ()):
                names = {fault["id"], *fault.get("aliases", ())}
                if names & (allowed.keys() | seen):
                    continue
                seen |= names
                fixes = fault["fix_versions"]
                text = f"{package['name']} {package['version']}: {fault['id']}"
                (found.fixable if fixes else found.unfixable).append(
                    f"{text}, mended in {', '.join(fixes)}" if fixes else f"{text}, which no version mends"
                )
        if not found.unchecked:
            return found
    if not found.unchecked:
        found.unchecked = ["all packages"]
    return found


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


def main(files: Sequence[str], run: Run = run) -> int:
    """Look, say what was found, and return the exit code."""
    try:
        found = audit(files, ignored(), run)
    except Broken as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    for text in found.unfixable:
        print(f"==> known, without a remedy: {text}")
    for text in found.fixable:
        print(f"==> VULNERABLE: {text}; scripts/lock --upgrade takes newer versions")
    if found.unchecked:
        names = ", ".join(found.unchecked[:5]) + (" ..." if len(found.unchecked) > 5 else "")
        print(f"==> NOT CHECKED FOR KNOWN VULNERABILITIES ({len(found.unchecked)}): {names}")
        print(f"==> because: {found.why}")
    elif not found.fixable:
        print("==> no known vulnerabilities that have a remedy")
    return 1 if found.fixable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
