"""Place: where the Unix socket of administration is unless somebody says otherwise, so that commands find it.

Whoever may open that socket has all rights, so it is made only where nobody else can put another in its place.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssepool.errors import ConfigError

SYSTEM_FOLDER = Path("/run/ssepool")
"""Where the socket of a service is: `RuntimeDirectory=ssepool` of systemd makes this folder for it."""


def make_path(port: int) -> Path:
    """Where the hub of this port makes its socket. Raises `ConfigError` if there is no folder that is safe."""
    *given, own = _folders()
    name = _name(port)
    for folder in given:
        if _is_ours(folder, 0o022) and os.access(folder, os.W_OK):
            return folder / name
    try:
        own.mkdir(0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"there is no place for the Unix socket of administration: {own}: {error.strerror}; {_INSTEAD}"
        ) from error
    parent = own.parent.stat().st_mode
    if not _is_ours(own, 0o077) or (parent & 0o022 and not parent & stat.S_ISVTX):
        raise ConfigError(
            f"the Unix socket of administration is not safe in {own}: others may write there, or the folder is not "
            f"this user's alone; {_INSTEAD}"
        )
    return own / name


def find_path(port: int) -> Path | None:
    """Where the hub of this port has made its socket; None if there is none that this user or root made."""
    for folder in _folders():
        path = folder / _name(port)
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode) and (folder == SYSTEM_FOLDER or found.st_uid in (0, os.geteuid())):
            return path
    return None


def searched(port: int) -> str:
    """The paths at which `find_path` looks, for a message."""
    return ", ".join(str(folder / _name(port)) for folder in _folders())


_INSTEAD = "--admin unix:PATH names another, --admin none is without"


def _folders() -> Iterator[Path]:
    """The folders in which a socket may be, the last of which is made where it is missing."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/"):
        yield Path(given)
    yield SYSTEM_FOLDER
    if hasattr(os, "getuid"):
        yield Path(tempfile.gettempdir()) / f"ssepool-{os.getuid()}"


def _name(port: int) -> str:
    return f"ssepool-{port}.sock"


def _is_ours(folder: Path, forbidden: int) -> bool:
    """Whether this is a folder of this user, and no link, with none of these bits in its mode."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & forbidden
