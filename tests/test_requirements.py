"""The locked versions of `requirements/`: all there, within pyproject.toml, from no named place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    "ci.txt": ("audit", "client", "dev", "nats", "postgres", "redis"),
    "image.txt": ("client", "nats", "postgres", "redis"),
    "build.txt": (),
}
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = ("linux", "darwin")


def locked(file: str) -> list[Requirement]:
    """What a lock has, without the hashes."""
    text = (FOLDER / file).read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return [Requirement(line.partition("--hash")[0].strip()) for line in lines]


def versions(file: str, python: str, system: str) -> dict[str, str]:
    """What is installed from a lock there."""
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    found: dict[str, str] = {}
    for item in locked(file):
        if item.marker is None or item.marker.evaluate(where):
            [pin] = item.specifier
            assert pin.operator == "=="
            assert canonicalize_name(item.name) not in found
            found[canonicalize_name(item.name)] = pin.version
    return found


def wanted(file: str) -> Iterator[Requirement]:
    """What pyproject.toml asks for there."""
    lists = [PROJECT["optional-dependencies"][extra] for extra in EXTRAS[file]]
    if file != "image.txt":
        lists.append(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"])
    if file != "build.txt":
        lists.append(PROJECT["dependencies"])
    yield from (Requirement(text) for texts in lists for text in texts)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("file", EXTRAS)
def test_a_lock_has_all_that_is_asked_for_in_versions_that_are_allowed(file: str, python: str, system: str) -> None:
    found = versions(file, python, system)
    for item in wanted(file):
        assert found[canonicalize_name(item.name)] in item.specifier, str(item)


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest = {item.name: (item.extras, item.specifier) for item in locked("oldest.txt")}
    bounds = {item.name: item for item in map(Requirement, PROJECT["dependencies"])}
    assert set(oldest) == {*bounds, "fastapi"}
    for name, item in bounds.items():
        [bound], [pin] = item.specifier, oldest[name][1]
        assert (bound.operator, pin.operator, bound.version) == (">=", "==", pin.version)


@pytest.mark.parametrize("file", ["image.txt", "build.txt"])
def test_what_is_shipped_is_what_is_tested(file: str) -> None:
    tested = versions("ci.txt", "3.13", "linux")
    assert versions(file, "3.13", "linux").items() <= tested.items()


@pytest.mark.parametrize("file", EXTRAS)
def test_each_version_has_hashes_and_comes_from_wherever_pip_fetches(file: str) -> None:
    text = (FOLDER / file).read_text("utf-8")
    for entry in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in entry, entry
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host"):
        assert word not in text


def test_the_image_is_installed_from_its_lock() -> None:
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text("utf-8")
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install
