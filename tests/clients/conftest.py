"""Programs that are clients, and what they print."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from live import wait_for


class Program:
    """A client in a process of its own."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\r\n"))

    def wait_line(self, text: str, *, times: int = 1) -> None:
        """Wait until so many lines have this text in them."""
        wait_for(lambda: sum(text in line for line in self.lines) >= times, what=f"{text!r} in {self.lines}")

    def wait_end(self) -> int:
        """Wait for its end; all of its lines are there then."""
        code = self.process.wait(15)
        self._reader.join()
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait_end()


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Starts programs, which end with the test."""
    programs: list[Program] = []

    def start(*command: str) -> Program:
        programs.append(Program(*command))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()
