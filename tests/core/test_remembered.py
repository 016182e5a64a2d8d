"""What is remembered leaves when its time has come, and when there is too much of it."""

from __future__ import annotations

from ssepool.core.remembered import Remembered


def test_a_value_is_there_until_its_time_has_come() -> None:
    kept: Remembered[str] = Remembered(10, 100)
    kept.add("a", "x", until=5.0, size=1, now=0.0)
    assert kept.get("a", 4.9) == "x"
    assert kept.get("a", 5.0) is None


def test_a_value_that_is_taken_is_gone() -> None:
    kept: Remembered[str] = Remembered(10, 100)
    kept.add("a", "x", until=5.0, size=1, now=0.0)
    assert kept.take("a", 1.0) == "x"
    assert kept.take("a", 1.0) is None
    assert (len(kept), kept.size) == (0, 0)


def test_beyond_its_number_the_first_leaves() -> None:
    kept: Remembered[int] = Remembered(2, 100)
    for n in range(4):
        kept.add(str(n), n, until=9.0, size=1, now=0.0)
    assert [kept.get(str(n), 0.0) for n in range(4)] == [None, None, 2, 3]


def test_beyond_its_bytes_the_first_leaves() -> None:
    kept: Remembered[int] = Remembered(100, 100)
    for n in range(4):
        kept.add(str(n), n, until=9.0, size=40, now=0.0)
    assert [kept.get(str(n), 0.0) for n in range(4)] == [None, None, 2, 3]
    kept.add("big", 9, until=9.0, size=101, now=0.0)
    assert (len(kept), kept.size) == (0, 0)


def test_what_is_over_goes_when_something_comes() -> None:
    kept: Remembered[int] = Remembered(100, 100)
    for n in range(5):
        kept.add(str(n), n, until=1.0, size=1, now=0.0)
    kept.add("new", 9, until=9.0, size=1, now=2.0)
    assert (len(kept), kept.size) == (1, 1)


def test_a_new_value_takes_the_place_of_the_old_one_of_its_name() -> None:
    kept: Remembered[int] = Remembered(100, 100)
    kept.add("a", 1, until=9.0, size=60, now=0.0)
    kept.add("a", 2, until=9.0, size=60, now=0.0)
    assert (kept.get("a", 0.0), kept.size) == (2, 60)


def test_what_a_condition_names_is_forgotten() -> None:
    kept: Remembered[int] = Remembered(100, 100)
    for n in range(4):
        kept.add(str(n), n, until=9.0, size=1, now=0.0)
    kept.forget(lambda value: value % 2 == 0)
    assert [kept.get(str(n), 0.0) for n in range(4)] == [None, 1, None, 3]
    assert kept.size == 2
