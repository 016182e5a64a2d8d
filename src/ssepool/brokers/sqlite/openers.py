"""Openers: who has a database open, and how far the history has come with any of them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

from ssepool.brokers.sqlite.files import Identity

if sys.platform != "win32":
    import fcntl

SUFFIX = "-hubs"
"""What the name of the file beside the database ends in."""

_MARK_BYTES = 30
_FILES_AT, _FILES_BYTES = 64, 256


class Openers:
    """A file beside the database on which each broker holds a shared lock (`flock`) for as long as it is open. The
    kernel takes it back when a process dies, however it dies: who can have the lock for itself is alone.

    The file also says how far any of them has seen the history come, so that one that has just opened an older state of
    the database knows it for what it is; and which files the database was, so that nobody takes the log of one before
    for its own. Where such locks do not work, and when somebody has removed the file, a broker
    thinks that it is alone. That is the safe side: the history goes on under another name.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet. `path` is the database."""
        self._database = os.path.realpath(path)
        self._descriptor = -1
        self._files = ""
        _all.add(self)

    def look(self) -> None:
        """Share what stands in the file, without being among those who have the database open, which is there. Raises
        `OSError`."""
        if sys.platform != "win32" and self._descriptor < 0:
            self._descriptor = self._opened()

    def enter(self) -> bool | None:
        """Be among those who have the database open, which is there. Returns whether nobody else is.

        Then nobody else comes in before `settle`. None if somebody else is about to open it: try again soon. Raises
        `OSError`.
        """
        if sys.platform == "win32":
            return True
        self.look()
        for lock, is_alone in ((fcntl.LOCK_EX, True), (fcntl.LOCK_SH, False)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, lock | fcntl.LOCK_NB)
                return is_alone
        return None

    def settle(self) -> None:
        """Let others in."""
        if sys.platform != "win32" and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def leave(self) -> None:
        """Have the database open no longer. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def mark(self, epoch: str, newest: int, files: Sequence[Identity | None] = ()) -> None:
        """Write down how far the history has come, and in which files it is."""
        names = " ".join("0:0" if one is None else f"{one[0]}:{one[1]}" for one in files)
        if names and names != self._files and self._descriptor >= 0:
            self._files = names
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, f"{names}\n".ljust(_FILES_BYTES).encode(), _FILES_AT)
        said = self.marked()
        if self._descriptor >= 0 and (said is None or said[0] != epoch or said[1] < newest):
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, b"%8b %20d\n" % (epoch.encode(), newest), 0)

    def marked(self) -> tuple[str, int] | None:
        """The name of the history and its end, as the last one has written it down; None if nobody has."""
        if self._descriptor < 0:
            return None
        try:
            epoch, newest = os.pread(self._descriptor, _MARK_BYTES, 0).split()
            return epoch.decode(), int(newest)
        except (OSError, ValueError):
            return None

    def files(self) -> list[Identity | None]:
        """The files in which the history was when somebody wrote them down; empty if nobody has."""
        try:
            with open(self._database + SUFFIX, "rb") as file:
                file.seek(_FILES_AT)
                names = file.read(_FILES_BYTES).decode().split()
            pairs = [tuple(map(int, name.split(":"))) for name in names]
            return [(device, inode) if inode else None for device, inode in pairs]
        except (OSError, ValueError):
            return []

    def _opened(self) -> int:
        # It may be opened by whoever may open the database, as SQLite's own files beside that.
        mode = stat.S_IMODE(os.stat(self._database).st_mode) & 0o666
        name = self._database + SUFFIX
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            return os.open(name, os.O_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            os.fchmod(descriptor, mode)
        return descriptor


_all: weakref.WeakSet[Openers] = weakref.WeakSet()


def _leave_all() -> None:
    # The lock belongs to all copies of the descriptor: a child that has nothing to do with it would hold it on.
    for openers in _all:
        openers.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
