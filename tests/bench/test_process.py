"""What processes cost, from a folder like /proc and from the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from live import wait_for
from ssepool.bench.process import Processes, own_cpu, own_wait


class Proc:
    """A folder like /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "uptime").write_text("1 1\n")

    def add(self, pid: int, parent: int, threads: dict[int, int], pss: int, name: str = "x") -> None:
        folder = self.folder / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1\n")
        (folder / "smaps_rollup").write_text(f"00-ff ---p 0 [rollup]\nRss:  9999 kB\nPss:  {pss} kB\nPss_Dirty: 1 kB\n")
        for thread, nanoseconds in threads.items():
            self.run(pid, thread, nanoseconds)

    def run(self, pid: int, thread: int, nanoseconds: int) -> None:
        folder = self.folder / str(pid) / "task" / str(thread)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schedstat").write_text(f"{nanoseconds} 5 6\n")

    def end(self, pid: int) -> None:
        (self.folder / str(pid)).rename(self.folder / f"ended-{pid}")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path)
    made.add(1, 0, {1: 10**9}, 1000)
    made.add(10, 1, {10: 2 * 10**9, 11: 10**9}, 100, name="a) S 1 (b")
    made.add(20, 10, {20: 10**8}, 20)
    made.add(30, 20, {30: 10**7}, 3)
    return made


def test_children_and_theirs_count_too(proc: Proc) -> None:
    processes = Processes([10], proc.folder)
    assert processes.pids() == {10, 20, 30}
    assert processes.cpu() == pytest.approx(3.11)
    assert processes.memory() == 123 * 1024


def test_a_process_that_is_named_beside_its_parent_counts_once(proc: Proc) -> None:
    assert Processes([10, 20, 30], proc.folder).cpu() == pytest.approx(3.11)


def test_what_those_used_that_have_ended_stays_counted(proc: Proc) -> None:
    processes = Processes([10], proc.folder)
    processes.cpu()
    proc.end(30)
    proc.run(20, 20, 2 * 10**8)
    proc.add(40, 20, {40: 10**9}, 7)
    assert processes.cpu() == pytest.approx(4.21)
    assert processes.memory() == 127 * 1024


def test_of_processes_that_are_not_there_nothing_is_known(proc: Proc) -> None:
    processes = Processes([99], proc.folder)
    assert (processes.pids(), processes.cpu(), processes.memory()) == (set(), None, None)


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    processes = Processes([1], tmp_path / "nowhere")
    assert (processes.pids(), processes.cpu(), processes.memory()) == (set(), None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_real_processes_have_their_cost() -> None:
    code = "import sys; [n for n in range(3_000_000)]; print('done', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        alone, with_parent = Processes([child.pid]), Processes([os.getpid()])
        assert alone.pids() == {child.pid}
        assert {child.pid, os.getpid()} <= with_parent.pids()
        used, memory = alone.cpu(), alone.memory()
        assert used and 0.01 < used < 30
        assert memory and 2**20 < memory < 2**30
        child.stdin.close()
    wait_for(lambda: not alone.pids())
    assert alone.cpu() == used


def test_this_process_has_its_cost() -> None:
    before = own_cpu()
    assert sum(range(1_000_000)) and own_cpu() > before
    assert own_wait() >= 0
