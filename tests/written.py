"""Code that stands in the documentation, and servers that run it as it stands there."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

from live import LiveServer, running

COMMAND = "uvicorn app:app --http ssepool.uvicorn:Protocol"
"""How the documentation runs an application that is saved as `app.py`."""
PROTOCOLS = ("ssepool.uvicorn:Protocol", "httptools")


def blocks(text: str, section: str, language: str) -> list[str]:
    """The code of a section of a document, block by block."""
    own = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", own, re.MULTILINE | re.DOTALL)


def serve_code(code: str, folder: Path, http: str) -> contextlib.AbstractContextManager[LiveServer]:
    """The application `app` of this code, run with `COMMAND`, or with another protocol of uvicorn."""
    (folder / "app.py").write_text(code, "utf-8")
    words = COMMAND.replace(PROTOCOLS[0], http).split()
    return running([sys.executable, "-m", *words, "--app-dir", str(folder), "--port", "0"], r"running on (http\S*)")
