"""What is known of dropped events one by one."""

from __future__ import annotations

from ssepool.core import cuts as cuts_module
from ssepool.core.cuts import Cuts
from ssepool.core.topics import Subscription

A = Subscription.of(["a"])


def test_what_was_dropped_since_is_found_wherever_the_cuts_were() -> None:
    cuts = Cuts()
    cuts.drop(9, ("b",), False)
    cuts.drop(7, ("a",), False)
    since = cuts.drops
    cuts.drop(3, ("a", "b"), False)
    cuts.drop(4, ("a",), True)
    cuts.drop(5, ("b",), False)
    assert cuts.dropped(since, 2, A.matches) == 3
    assert cuts.dropped(since, 3, A.matches) == 0
    assert cuts.dropped(since, 2, Subscription.of(["a"], private=True).matches) == 4
    assert cuts.dropped(cuts.drops, 0, A.matches) == 0
    left = cuts.until(8)
    assert left.dropped(cuts.drops, 0, A.matches) == 0


def test_of_too_many_it_is_not_known() -> None:
    cuts = Cuts()
    for position in range(1, cuts_module.MAX_RECENT + 2):
        cuts.drop(position, ("a",), False)
    assert cuts.dropped(0, 0, A.matches) is None
    assert cuts.dropped(1, 0, A.matches) == cuts_module.MAX_RECENT + 1
