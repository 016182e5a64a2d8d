"""What processes cost: their time on a core and their memory, as Linux counts them in /proc, proc(5)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
"""Where Linux shows its processes."""


class Processes:
    """Some processes, and all their descendants.

    The CPU time that a thread used between the last call of `cpu` and its own end is not counted.
    """

    def __init__(self, pids: Iterable[int], proc: Path = PROC) -> None:
        self._pids = frozenset(pids)
        self._proc = proc
        self._used: dict[tuple[int, int], int] = {}  # by process and thread, ended ones included

    def pids(self) -> set[int]:
        """The processes that there are now; none on a system without /proc."""
        if not self._pids or not self._proc.is_dir():
            return set()
        children: dict[int, list[int]] = {}
        for folder in self._proc.iterdir():
            if folder.name.isdigit() and (text := _read(folder / "stat")):
                # The program's name stands before this, in brackets, and may have any characters, brackets too.
                parent = int(text.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
        found: set[int] = set()
        left = [pid for pid in self._pids if (self._proc / str(pid)).is_dir()]
        while left:
            pid = left.pop()
            if pid not in found:
                found.add(pid)
                left += children.get(pid, [])
        return found

    def cpu(self) -> float | None:
        """Seconds that all threads of these processes have been on a core; `None` if the kernel does not tell."""
        for pid in self.pids():
            for thread, nanoseconds in self._threads(pid):
                self._used[pid, thread] = nanoseconds
        return sum(self._used.values()) / 1e9 if self._used else None

    def memory(self) -> int | None:
        """Bytes of memory of all these processes; `None` if the kernel does not tell.

        Each process has its share of the memory that it has in common with others (PSS). The kernel's memory for
        sockets is not included.
        """
        sizes = [size for pid in self.pids() if (size := _pss(self._proc / str(pid))) is not None]
        return sum(sizes) if sizes else None

    def _threads(self, pid: int) -> Iterator[tuple[int, int]]:
        try:
            threads = os.listdir(self._proc / str(pid) / "task")
        except OSError:
            return
        for thread in threads:
            if text := _read(self._proc / str(pid) / "task" / thread / "schedstat"):
                yield int(thread), int(text.split()[0])


def own_cpu() -> float:
    """Seconds that this process has been on a core."""
    return time.process_time()


def own_wait() -> float:
    """Seconds that this thread was ready to run while others had the core; 0 if the kernel does not tell."""
    text = _read(PROC / "thread-self" / "schedstat")
    return int(text.split()[1]) / 1e9 if text else 0.0


def _pss(folder: Path) -> int | None:
    for line in (_read(folder / "smaps_rollup") or "").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: Path) -> str | None:
    """The text of a file in /proc; `None` if the file is gone or may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
