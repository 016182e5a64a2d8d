"""Progress: when something is late, and when a tail that gives nothing is begun anew."""

from __future__ import annotations

from ssepool.runtime.streams.progress import MAX_PATIENCE_LOOKS, Progress


def looks(progress: Progress, count: int, position: int = 3, newest: int = 5, *, is_crowded: bool = False) -> list[int]:
    """Those of so many looks, counted from 0, at which something is to be done."""
    return [number for number in range(count) if progress.look(position, newest, 0.0, is_crowded=is_crowded)]


def test_what_the_broker_has_named_is_late_until_the_log_is_there() -> None:
    progress = Progress(0.0)
    assert progress.late(0, 9.0) == 0.0
    progress.look(2, 5, 10.0, is_crowded=False)
    progress.look(3, 8, 12.0, is_crowded=False)
    assert (progress.late(4, 13.0), progress.late(5, 13.0)) == (3.0, 0.0)
    progress.look(5, 8, 14.0, is_crowded=False)
    assert (progress.late(5, 15.0), progress.late(8, 15.0)) == (1.0, 0.0)
    progress.begin(2, 16.0)  # of a history that is lost
    assert progress.late(2, 20.0) == 0.0


def test_a_tail_that_gives_nothing_gets_twice_as_long_each_time() -> None:
    progress = Progress(0.0)
    assert looks(progress, 32) == [1, 3, 7, 15, 15 + MAX_PATIENCE_LOOKS, 15 + 2 * MAX_PATIENCE_LOOKS]
    assert progress.stalls == 6


def test_a_tail_that_gives_something_or_waits_for_delivery_is_left_alone() -> None:
    progress = Progress(0.0)
    assert looks(progress, 9, position=5) == []
    assert looks(progress, 9, is_crowded=True) == []
    assert [number for number in range(4) if progress.look(number, 5, 0.0, is_crowded=False)] == []
    assert looks(progress, 3) == [0, 2] and progress.stalls == 2
    assert looks(progress, 3, position=4) == [1] and progress.stalls == 1
    progress.begin(4, 0.0)
    assert looks(progress, 2, position=4) == [1] and progress.stalls == 1
