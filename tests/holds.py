"""How long a hub holds its event loop at a time: `holds.py FILE LOOP PATH PORT SETTINGS-AS-JSON` is `live_hub.py` that
writes each hold into FILE, a line of JSON each.

What counts is the time for which the loop's thread was on a core: other processes of a busy machine do not lengthen it.
On `uvloop` a hold is a turn of the loop, between two ticks of a timer, and a second thread looks where it works; on
`asyncio` it is a single callback, whose name is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import live_hub
from live import LiveServer, running, wait_for
from ssepool.server import server

TICK_SECONDS = 0.001
NOTED_SECONDS = 0.004
"""Shorter holds are not written down."""
LOOK_SECONDS = 0.002
SIGN_SECONDS = 0.05
"""Between two lines that say that all before them has been noted."""
FRAMES = 3
"""Frames of the stack that tell where a hold is."""


class Hold(NamedTuple):
    """One hold of the event loop."""

    milliseconds: float
    at: float
    """When it ended, in seconds of the clock that all processes share."""
    where: str

    def __str__(self) -> str:
        return f"{self.milliseconds:6.1f} ms in {self.where}"


class Held(LiveServer):
    """A server that says for how long it held its loop."""

    file: Path

    def holds(self, since: float) -> list[Hold]:
        """The holds since a time of `time.monotonic`, the longest first."""
        asked = time.monotonic()

        def noted() -> list[Hold] | None:
            found = [Hold(*json.loads(line)) for line in self.file.read_text().splitlines()]
            return found if self.process.poll() is not None or any(hold.at > asked for hold in found) else None

        return sorted((hold for hold in wait_for(noted) if hold.at >= since and hold.where), reverse=True)


@contextlib.contextmanager
def serve(loop: str = "uvloop", path: str = "detached", **settings: Any) -> Iterator[Held]:
    """A running hub on an event loop, as `live.serve` has it."""
    limit_files(20_000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holds"
        command = [sys.executable, __file__, str(file), loop, path, "0", json.dumps(settings)]
        with running(command, "^ready (http.*)") as found:
            found.__class__ = Held
            assert isinstance(found, Held)
            found.file = file
            yield found


def limit_files(number: int) -> None:
    """Allow this process, and those that it starts, so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


class Notes:
    """Writes holds down."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", buffering=1)
        self._signed = 0.0
        self._collecting = 0.0
        self.collected = 0.0
        """Seconds that the garbage collector has taken: they are told apart."""
        gc.callbacks.append(self._collect)

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            seconds = time.thread_time() - self._collecting
            self.collected += seconds
            self.note(seconds, f"a collection of generation {info['generation']}")

    def note(self, seconds: float, where: str) -> None:
        now = time.monotonic()
        if seconds >= NOTED_SECONDS:
            self._file.write(json.dumps([round(1000 * seconds, 1), now, where]) + "\n")
        elif now > self._signed + SIGN_SECONDS:
            self._signed = now
            self._file.write(json.dumps([0.0, now, ""]) + "\n")


def watch_callbacks(notes: Notes) -> None:
    """Note the callbacks of asyncio's own loop."""
    run = asyncio.events.Handle._run

    def watched(handle: asyncio.Handle) -> None:
        began, collected = time.thread_time(), notes.collected
        run(handle)
        notes.note(time.thread_time() - began - (notes.collected - collected), repr(handle))

    asyncio.events.Handle._run = watched  # type: ignore[method-assign]


class Turns:
    """Notes the turns of any loop."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._seen: dict[str, int] = {}
        self._last = time.thread_time()
        self._collected = notes.collected
        threading.Thread(target=self._look, daemon=True).start()
        self._tick()

    def _tick(self) -> None:
        now = time.thread_time()
        seen, self._seen = self._seen, {}
        collected, self._collected = self._notes.collected - self._collected, self._notes.collected
        self._notes.note(now - self._last - collected, max(seen, key=seen.__getitem__, default="?"))
        self._last = time.thread_time()
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if time.clock_gettime(self._clock) - self._last > NOTED_SECONDS:
                frame = sys._current_frames()[self._thread]
                stack = traceback.extract_stack(frame)[-FRAMES:]
                where = " > ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in stack)
                self._seen[where] = self._seen.get(where, 0) + 1


def main(file: str, loop: str, path: str, port: str, values: str) -> None:
    notes, ready, server.LOOP = Notes(Path(file)), live_hub.ready, loop
    if loop == "asyncio":
        watch_callbacks(notes)

    def begin(url: str) -> None:
        if loop != "asyncio":
            Turns(notes)
        ready(url)

    live_hub.ready = begin
    live_hub.main(path, int(port), json.loads(values))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
