"""Audit: where a stand-alone hub writes its audit log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler

from ssepool.errors import ConfigError

LOGGER = "ssepool.audit"
"""The logger of the entries, each a line of JSON."""


class _OwnFile(WatchedFileHandler):
    """A file for its user alone, which is opened anew where somebody has put it away."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600))


@contextlib.contextmanager
def written_to(place: str) -> Iterator[None]:
    """Write the audit log to a file, with `-` to standard output, with `none` nowhere, for as long as this lasts.
    Raises `ConfigError`."""
    if place == "none":
        yield
        return
    try:
        handler = logging.StreamHandler(sys.stdout) if place == "-" else _OwnFile(place)
    except OSError as error:
        raise ConfigError(f"the audit log cannot be written to {place}: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger(LOGGER)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
