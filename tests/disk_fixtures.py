"""A disk of its own for a test that fills it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import lacking, require


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    mount, directory = require("mount"), tmp_path / "small"
    directory.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", directory], capture_output=True, text=True)
    if done.returncode:
        lacking(f"no disk of its own for this test: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)
