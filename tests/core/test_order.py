"""Order: positions in order, of which any may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.core import order as order_module
from ssepool.core.order import Order, behind


def test_what_is_behind_a_position_is_found_though_much_has_gone_in_between() -> None:
    positions = list(range(1, 31))
    kept = set(positions) - set(range(4, 10))
    assert behind(positions, 0, 10, kept) == [1, 2, 3, *range(10, 17)]
    assert behind(positions, 0, 10, kept, start=12) == list(range(13, 23))
    assert behind(positions, 30, 10, kept) == []


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=60), st.data())
@pytest.mark.parametrize("spare", [0, 1000], ids=["taken out", "passed over"])
def test_it_finds_what_a_plain_list_has(spare: int, steps: list[tuple[int, bool]], data: st.DataObject) -> None:
    kept: dict[int, None] = {}
    order, position = Order(kept), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "SPARE", spare)
        for hole, goes in steps:
            position += hole
            kept[position] = None
            order.add(position, float(position))
            if goes and kept:
                gone = data.draw(st.sampled_from(sorted(kept)))
                del kept[gone]
                order.forget([gone])
    left = sorted(kept)
    assert list(order) == left
    assert order.first == next(iter(left), None)
    for place in range(position + 2):
        later = [one for one in left if one > place]
        assert [order.behind(place, most) for most in (1, 4, 100)] == [later[:1], later[:4], later]
        assert order.after(place) == next(iter(later), None)
        assert order.before(place) == max((one for one in left if one <= place), default=0)
        assert order.until(place) == [one for one in left if one <= place]
    assert [order.time(one) for one in left] == left
