"""Supervisor: workers that start, die, hang and end as a test's story says, without a process or real time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssepool.server import supervisor
from ssepool.server.balance import ROW_FIELDS
from ssepool.server.supervisor import (
    BACKOFF_SECONDS,
    GRACE_SECONDS,
    HUNG_SECONDS,
    STEADY_SECONDS,
    TICK_SECONDS,
    Supervisor,
    Worker,
)

SHUTDOWN = 5.0


class Pipe:
    """Both ends of a pipe by which a worker says that it is ready."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.ended = False
        self.closed = 0

    def poll(self) -> bool:
        return bool(self.said) or self.ended

    def recv(self) -> object:
        if not self.said:
            raise EOFError
        return self.said.pop()

    def close(self) -> None:
        self.closed += 1


class Process:
    """A worker's process, which does nothing by itself."""

    def __init__(self, stage: Stage, worker: Worker, args: tuple[Any, ...], name: str) -> None:
        self.stage = stage
        self.worker = worker
        self.args = args
        self.name = name
        self.pid = 1000 + len(stage.processes)
        self.sentinel = f"sentinel {self.pid}"
        self.exitcode: int | None = None
        self.started_at: float | None = None
        self.killed = 0
        self.stubborn = False
        """Whether it does not end when it is asked to."""
        self.lingers = False
        """Whether it goes on for a moment even when it is killed."""
        self.closed = False

    @property
    def pipe(self) -> Pipe:
        assert isinstance(self.worker.ready, Pipe)
        return self.worker.ready

    def start(self) -> None:
        self.started_at = self.stage.now

    def kill(self) -> None:
        self.killed += 1
        if not self.lingers:
            self.die(-9)

    def join(self, timeout: float | None = None) -> None:
        if self.exitcode is None:
            assert timeout is not None
            self.stage.now += timeout

    def close(self) -> None:
        assert self.exitcode is not None
        self.closed = True

    # What a story does with it.

    def ready(self) -> None:
        self.tell()
        self.pipe.said.append(True)

    def tell(self) -> None:
        """As a worker that lives does several times a second."""
        self.worker.balance.table[self.worker.index * ROW_FIELDS + 2] = self.stage.now

    def die(self, code: int) -> None:
        if self.exitcode is None:
            self.exitcode = code
            self.pipe.ended = True


Story = Iterator[float]
"""Does something with the processes, and yields the seconds until the next look at them."""


class Stage:
    """A supervisor of workers that a test plays, and the clock of both."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.processes: list[Process] = []
        """All that were ever started, in order."""
        self.started: list[float] = []
        """When all were ready."""
        self.waited_for: list[list[Any]] = []
        self.asked: list[int] = []
        """The numbers of the processes that were asked to end."""
        monkeypatch.setattr(supervisor, "get_context", lambda method: self)
        monkeypatch.setattr(supervisor.waiting, "wait", self._wait)
        monkeypatch.setattr(os, "kill", self._ask_to_end)
        with socket.socket() as listener:
            self.supervisor = Supervisor(
                print,
                ("an argument",),
                listener,
                count=count,
                shutdown_timeout=SHUTDOWN,
                on_started=lambda: self.started.append(self.now),
                now=lambda: self.now,
            )

    def play(self, story: Story) -> int:
        """Supervise until the story is over, and then be told to end."""
        self._story = story
        return self.supervisor.run()

    def of(self, index: int) -> list[Process]:
        """A worker and its successors."""
        return [process for process in self.processes if process.worker.index == index]

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.exitcode is None]

    def live(self, seconds: float) -> Iterator[float]:
        """Let time pass, in which all that are there say so."""
        until = self.now + seconds
        while self.now < until:
            for process in self.alive():
                process.tell()
            yield min(TICK_SECONDS, until - self.now)

    def begin(self) -> Iterator[float]:
        """All get ready."""
        for process in self.alive():
            process.ready()
        yield 0.01

    # What the supervisor uses instead of what there really is.

    def Pipe(self, duplex: bool) -> tuple[Pipe, Pipe]:
        assert not duplex
        pipe = Pipe()
        return pipe, pipe

    def Process(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> Process:
        assert target is print
        process = Process(self, args[0], args[1:], name)
        self.processes.append(process)
        return process

    def _wait(self, sentinels: list[Any], timeout: float) -> None:
        assert timeout == TICK_SECONDS
        self.waited_for.append(sentinels)
        seconds = next(self._story, None)
        if seconds is None:
            signal.raise_signal(signal.SIGTERM)
        else:
            self.now += seconds

    def _ask_to_end(self, pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        self.asked.append(pid)
        for process in self.processes:
            if process.pid == pid and not process.stubborn:
                process.die(0)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(2, monkeypatch)


def test_each_worker_is_told_which_one_it_is(stage: Stage) -> None:
    assert stage.play(stage.begin()) == 0
    workers = [process.worker for process in stage.processes]
    assert [(worker.index, worker.count) for worker in workers] == [(0, 2), (1, 2)]
    assert len({worker.group for worker in workers}) == 1
    assert all(worker.balance.table is workers[0].balance.table for worker in workers)
    assert [worker.balance.worker for worker in workers] == [0, 1]
    assert [process.name for process in stage.processes] == ["ssepool-worker-0", "ssepool-worker-1"]
    assert [process.args for process in stage.processes] == [("an argument",)] * 2


def test_two_supervisors_have_groups_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = set()
    for _ in range(2):
        stage = Stage(1, monkeypatch)
        stage.play(stage.begin())
        groups.add(stage.processes[0].worker.group)
    assert len(groups) == 2


def test_it_says_once_that_all_are_ready(stage: Stage) -> None:
    def story() -> Story:
        stage.processes[0].ready()
        yield 1.0
        assert stage.started == []
        stage.processes[1].ready()
        yield 1.0
        assert stage.started == [1002.0]
        stage.processes[1].die(1)
        yield 1.0
        yield from stage.live(10.0)
        stage.processes[2].ready()
        yield from stage.live(10.0)

    assert stage.play(story()) == 0
    assert (len(stage.started), len(stage.processes)) == (1, 3)


@pytest.mark.parametrize("code", [0, 1, 2, 3, -9])
def test_one_that_ends_before_it_was_ready_ends_all_with_its_code(stage: Stage, code: int) -> None:
    def story() -> Story:
        stage.processes[0].ready()
        yield 0.1
        stage.processes[1].die(code)
        yield 0.1
        raise AssertionError("it should have ended")

    assert stage.play(story()) == (code or 1)
    assert (stage.started, stage.asked, len(stage.processes)) == ([], [1000], 2)


def test_once_all_were_ready_a_successor_that_cannot_start_is_replaced_like_any_other(stage: Stage) -> None:
    def story() -> Story:
        yield from stage.begin()
        stage.processes[1].die(1)
        yield 0.0
        yield from stage.live(1.0)
        stage.processes[2].die(2)
        yield 0.0
        yield from stage.live(1.0)
        assert len(stage.of(1)) == 3

    assert stage.play(story()) == 0


def test_one_that_dies_once_it_was_ready_does_not_end_those_that_start(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def story() -> Story:
        stage.processes[0].ready()
        yield 0.1
        stage.processes[0].die(-11)
        yield 0.1
        yield from stage.live(1.0)
        stage.processes[2].ready()
        stage.processes[1].ready()
        yield 0.1

    assert stage.play(story()) == 0
    assert len(stage.started) == 1
    assert caplog.messages == ["worker 0 (pid 1000) ended with code -11; another takes its place in 0.1 s"]


def test_who_dies_again_and_again_is_replaced_later_and_later(stage: Stage) -> None:
    first, most = BACKOFF_SECONDS
    delays: list[float] = []

    def story() -> Story:
        yield from stage.begin()
        for turn in range(9):
            newest = stage.of(1)[-1]
            newest.die(1)
            yield 0.0
            assert newest.closed
            died = stage.now
            while len(stage.of(1)) == turn + 1:
                stage.of(0)[0].tell()
                yield 0.01
            delays.append(stage.now - died)
            stage.of(1)[-1].ready()
            yield 0.0

    assert stage.play(story()) == 0
    expected = [min(most, first * 2**turn) for turn in range(9)]
    assert delays == [pytest.approx(seconds, abs=0.02) for seconds in expected]
    assert len(stage.of(0)) == 1


def test_who_has_lived_for_long_is_replaced_soon(stage: Stage) -> None:
    def story() -> Story:
        yield from stage.begin()
        for _ in range(5):
            stage.of(1)[-1].die(1)
            yield 0.0
            yield from stage.live(6.0)
            stage.of(1)[-1].ready()
            yield from stage.live(STEADY_SECONDS)
        yield from stage.live(1.0)
        stage.of(1)[-1].die(1)
        yield 0.0
        yield BACKOFF_SECONDS[0] - 0.01
        assert len(stage.of(1)) == 6
        yield 0.02
        assert len(stage.of(1)) == 7
        stage.of(0)[-1].tell()

    assert stage.play(story()) == 0


def test_what_a_dead_worker_said_of_itself_is_forgotten_at_once(stage: Stage) -> None:
    def story() -> Story:
        yield from stage.begin()
        table = stage.processes[0].worker.balance.table
        table[ROW_FIELDS : 2 * ROW_FIELDS] = [5.0, 5.0, stage.now]
        stage.processes[1].die(1)
        yield 0.0
        assert list(table[ROW_FIELDS : 2 * ROW_FIELDS]) == [0.0] * ROW_FIELDS
        assert table[2] > 0

    assert stage.play(story()) == 0


def test_one_that_hangs_is_killed_and_replaced(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def story() -> Story:
        yield from stage.begin()
        hanging, other = stage.processes
        yield HUNG_SECONDS - 0.1
        assert not hanging.killed
        other.tell()
        yield 0.2
        assert (hanging.killed, other.killed) == (1, 0)
        other.tell()
        yield 0.0
        yield 1.0
        assert len(stage.of(0)) == 2
        yield from stage.live(
            HUNG_SECONDS + 10
        )  # its successor has not even started yet, which takes as long as it takes

    assert stage.play(story()) == 0
    assert [process.killed for process in stage.processes] == [1, 0, 0]
    assert caplog.messages[0] == "worker 0 (pid 1000) hangs; it is killed"


def test_one_that_hangs_is_killed_once_although_it_takes_a_moment_to_die(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def story() -> Story:
        yield from stage.begin()
        hanging, other = stage.processes
        hanging.lingers = True
        yield HUNG_SECONDS - 0.1
        other.tell()
        yield 0.2
        for _ in range(5):
            yield 0.001
        hanging.die(-9)
        yield from stage.live(1.0)
        assert len(stage.of(0)) == 2

    assert stage.play(story()) == 0
    assert stage.processes[0].killed == 1
    assert [line for line in caplog.messages if "hangs" in line] == ["worker 0 (pid 1000) hangs; it is killed"]


def test_one_that_starts_slowly_is_left_alone(stage: Stage) -> None:
    def story() -> Story:
        yield 10 * HUNG_SECONDS
        yield from stage.begin()

    assert stage.play(story()) == 0
    assert [process.killed for process in stage.processes] == [0, 0]
    assert len(stage.started) == 1


def test_what_is_waited_for_is_every_process_and_all_that_are_not_ready(stage: Stage) -> None:
    def story() -> Story:
        yield 0.1
        stage.processes[0].ready()
        yield 0.1
        yield 0.1
        stage.processes[0].die(1)
        yield 0.01
        yield 0.01

    stage.play(story())
    first, second = stage.processes[:2]
    seen = [sentinels[1:] for sentinels in stage.waited_for]  # the first one is woken by signals
    assert seen[0] == [first.sentinel, first.pipe, second.sentinel, second.pipe]
    assert seen[2] == [first.sentinel, second.sentinel, second.pipe]
    assert seen[4] == [second.sentinel, second.pipe]


def test_a_pipe_is_closed_at_both_ends(stage: Stage) -> None:
    def story() -> Story:
        assert [process.pipe.closed for process in stage.processes] == [1, 1]  # the workers' own
        stage.processes[0].ready()
        yield 0.1
        stage.processes[0].die(1)
        stage.processes[1].die(0)
        yield 0.1

    stage.play(story())
    assert [process.pipe.closed for process in stage.processes] == [2, 2]


# The end.


def test_at_the_end_all_are_asked_to_end(stage: Stage) -> None:
    assert stage.play(stage.begin()) == 0
    assert stage.asked == [1000, 1001]
    assert [(process.exitcode, process.killed) for process in stage.processes] == [(0, 0), (0, 0)]
    assert stage.now == pytest.approx(1000.01)


def test_at_the_end_those_that_do_not_end_are_killed_when_the_time_of_all_is_up(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def story() -> Story:
        yield from stage.begin()
        for process in stage.processes:
            process.stubborn = True

    assert stage.play(story()) == 0
    assert [process.killed for process in stage.processes] == [1, 1]
    assert stage.now == pytest.approx(1000.01 + SHUTDOWN + GRACE_SECONDS)
    assert caplog.messages == [f"worker of pid {pid} did not end in time; it is killed" for pid in (1000, 1001)]


def test_at_the_end_those_that_have_died_are_not_asked(stage: Stage) -> None:
    def story() -> Story:
        yield from stage.begin()
        stage.processes[0].die(1)

    stage.play(story())
    assert stage.asked == [1001]


def test_one_that_dies_while_it_is_asked_does_no_harm(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, number: int) -> None:
        stage.processes[pid - 1000].die(1)
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    assert stage.play(stage.begin()) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_handlers_of_before_are_back(stage: Stage, number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]

    def story() -> Story:
        yield from stage.begin()
        signal.raise_signal(number)
        yield 0.1
        raise AssertionError("it should have ended")

    assert stage.play(story()) == 0
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_wakes_it_from_its_waiting(stage: Stage) -> None:
    def story() -> Story:
        yield from stage.begin()
        signal.raise_signal(signal.SIGTERM)
        (wake, *_) = stage.waited_for[-1]
        wake.setblocking(False)
        assert wake.recv(10) == bytes([signal.SIGTERM])
        yield 0.0

    assert stage.play(story()) == 0
