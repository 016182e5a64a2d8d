"""A pytest of its own, with the plugin of `ssepool.testing` and those that are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(folder: Path, *arguments: str, plugins: tuple[str, ...] = ("anyio",)) -> tuple[int, str]:
    """Run pytest in a folder, and return its code and what it said."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    loaded = [f"-p{name}" for name in ("ssepool.testing.plugin", *plugins)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-pno:cacheprovider", *loaded, *arguments],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
