"""Which files of tests begin first: those that take long, so that none of them runs alone at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import TypeVar

LONG = (
    "test_django.py",
    "test_demo.py",
    "test_dashboard.py",
    "test_cli.py",
    "test_examples.py",
    "clients",
    "test_django_examples.py",
    "test_request.py",
    "test_leaving.py",
    "test_django_publishing.py",
    "test_servers.py",
    "brokers",
    "deploy",
    "cluster",
    "faults",
    "attacks",
    "test_access.py",
    "test_middleware.py",
    "test_compression.py",
    "contract",
    "server",
    "bench",
    "test_ends.py",
    "test_dialects.py",
    "test_layers.py",
    "test_browser_tokens.py",
    "test_readme.py",
    "test_lifetimes.py",
)
"""Files and folders in `tests/` that wait for processes, browsers or real time, the longest first. All others
come after them."""

Item = TypeVar("Item")


def ordered(items: Iterable[Item], path: Callable[[Item], PurePath]) -> list[Item]:
    """The items, those of long files first, each file as a whole where its first item is. `path` tells an item's file,
    relative to `tests/`."""
    files: dict[PurePath, list[Item]] = {}
    for item in items:
        files.setdefault(path(item), []).append(item)
    return [item for file in sorted(files, key=_rank) for item in files[file]]


def _rank(file: PurePath) -> int:
    top = file.parts[0] if file.parts else ""
    return LONG.index(top) if top in LONG else len(LONG)
