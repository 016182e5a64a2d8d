"""Long files of tests begin first, whatever the dice say about the rest."""

from __future__ import annotations

from pathlib import Path, PurePath

from order import LONG, ordered


def test_each_name_of_the_list_is_there_once() -> None:
    assert len(set(LONG)) == len(LONG)
    assert [name for name in LONG if not (Path(__file__).parent / name).exists()] == []


def test_long_files_are_first_and_each_keeps_the_order_of_its_tests() -> None:
    short, first, second = "core/test_pool.py", LONG[0], f"{LONG[5]}/test_models.py"
    items = [(short, 2), (second, 9), (short, 1), (first, 4), (second, 8), ("core/test_rates.py", 0), (first, 3)]
    assert ordered(items, lambda item: PurePath(item[0])) == [
        (first, 4),
        (first, 3),
        (second, 9),
        (second, 8),
        (short, 2),
        (short, 1),
        ("core/test_rates.py", 0),
    ]
