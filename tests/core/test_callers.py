"""Callers: how many there are, and who gives way to whom."""

from __future__ import annotations

import random

import pytest

from ssepool.core.callers import MAX_CALLERS, MAX_LOOKS, MIN_CALLERS, MIN_SHARE, Callers, Place, Stage, most_callers


class Room:
    """Callers by name, and those that were closed."""

    def __init__(self, most: int = 5, **options: bool | Stage) -> None:
        self.most = most
        self.callers = Callers(lambda: self.most, **options)  # type: ignore[arg-type]
        self.places: dict[str, Place] = {}
        self.closed: list[str] = []

    def enter(self, *names: str, source: str | None = None, stage: Stage = Stage.HEAD) -> None:
        for name in names:
            self.places[name] = self.callers.enter(source, lambda name=name: self.closed.append(name))  # type: ignore[misc]
            self.places[name].move(stage)


def test_below_the_bound_nobody_gives_way() -> None:
    room = Room(5)
    room.enter(*"abcde")
    assert (len(room.callers), room.closed) == (5, [])


def test_the_oldest_gives_way_to_the_newest() -> None:
    room = Room(3)
    room.enter(*"abcde")
    assert (len(room.callers), room.closed) == (3, ["a", "b"])
    assert room.callers.cut == 2


def test_what_is_lost_least_goes_first() -> None:
    room = Room(4)
    room.enter("answered", stage=Stage.ANSWER)
    room.enter("sending", stage=Stage.BODY)
    room.enter("beginning", stage=Stage.HEAD)
    room.enter("idle", stage=Stage.IDLE)
    room.enter("1", "2", "3", "4", stage=Stage.ANSWER)
    assert room.closed == ["idle", "beginning", "sending", "answered"]


def test_who_has_just_had_an_answer_is_the_youngest_that_is_idle() -> None:
    room = Room(3)
    room.enter(*"abc", stage=Stage.IDLE)
    room.places["a"].is_fresh = True
    room.enter("d", stage=Stage.IDLE)
    assert room.closed == ["b"]
    room.enter("e", "f", stage=Stage.IDLE)
    assert room.closed == ["b", "c", "a"]


def test_where_all_have_just_had_an_answer_somebody_goes_all_the_same() -> None:
    room = Room(3 * MAX_LOOKS)
    for number in range(3 * MAX_LOOKS):
        room.enter(str(number), stage=Stage.IDLE)
        room.places[str(number)].is_fresh = True
    room.enter("new")
    assert room.closed == [str(MAX_LOOKS)]


def test_a_byte_more_of_the_same_head_makes_nobody_younger() -> None:
    room = Room(2)
    room.enter("a", "b")
    room.enter("c")
    assert room.closed == ["a"]


def test_the_new_one_never_gives_way_itself() -> None:
    room = Room(2)
    room.enter("a", "b", stage=Stage.ANSWER)
    room.enter("c")
    assert room.closed == ["a"]


def test_nobody_is_cut_off_beyond_the_last_stage() -> None:
    room = Room(2, last=Stage.BODY)
    room.enter("a", "b", stage=Stage.ANSWER)
    room.enter("c")
    assert (len(room.callers), room.closed) == (3, [])
    room.enter("d")
    assert room.closed == ["c"]


def test_an_address_beyond_its_share_makes_room_for_itself() -> None:
    room = Room(10 * MIN_SHARE)
    room.enter("other", source="b", stage=Stage.IDLE)
    room.enter(*(f"a{number}" for number in range(MIN_SHARE + 2)), source="a")
    assert room.closed == ["a0", "a1"]
    assert (room.callers.of("a"), room.callers.of("b"), len(room.callers)) == (MIN_SHARE, 1, MIN_SHARE + 1)


@pytest.mark.parametrize(("source", "shared"), [(None, True), ("a", False)])
def test_who_has_no_share_is_bounded_by_the_whole(source: str | None, shared: bool) -> None:
    room = Room(3 * MIN_SHARE, shared=shared)
    room.enter(*(f"a{number}" for number in range(3 * MIN_SHARE + 1)), source=source)
    assert room.closed == ["a0"]


def test_many_addresses_are_bounded_by_the_whole() -> None:
    room = Room(30)
    for number in range(31):
        room.enter(str(number), source=str(number))
    assert (len(room.callers), room.closed) == (30, ["0"])


def test_who_has_left_neither_counts_nor_gives_way() -> None:
    room = Room(2)
    room.enter("a", "b", source="x")
    for _ in range(2):
        room.places["a"].leave()
    room.places["a"].move(Stage.IDLE)
    assert (len(room.callers), room.callers.of("x")) == (1, 1)
    room.enter("c", "d", source="y")
    assert room.closed == ["b"]


def test_after_the_bound_has_sunk_a_few_go_with_each_that_comes() -> None:
    room = Room(10)
    room.enter(*(str(number) for number in range(10)))
    room.most = 4
    room.enter("a")
    assert len(room.callers) == 9
    room.enter(*"bcdefg")
    assert len(room.callers) == 4


def test_whatever_happens_the_numbers_are_right_and_nothing_is_kept_of_who_has_gone() -> None:
    dice = random.Random(7)
    callers, there = Callers(lambda: 40), set[Place]()

    def come() -> None:
        place = callers.enter(dice.choice([None, "a", "b", "c"]), lambda: there.remove(place))
        there.add(place)

    for _ in range(5000):
        if there and dice.random() < 0.4:
            place = dice.choice(sorted(there, key=id))
            place.move(dice.choice(list(Stage)))
            if dice.random() < 0.5:
                place.leave()
                there.remove(place)
        else:
            come()
        assert len(callers) == len(there) <= 40
        for source in "abc":
            assert callers.of(source) == sum(place.source == source for place in there) <= MIN_SHARE
    for place in there:
        place.leave()
    assert len(callers) == 0
    assert callers._rooms == {}
    assert not any(callers._all.lines)


@pytest.mark.parametrize(
    ("descriptors", "clients", "most"),
    [(5000, 2000, 3000), (300, 2000, MIN_CALLERS), (None, 2000, MAX_CALLERS), (10**6, 2000, MAX_CALLERS)],
)
def test_what_streams_and_waiters_leave(descriptors: int | None, clients: int, most: int) -> None:
    assert most_callers(descriptors, clients) == most
