"""http/wishes.py: what queries ask for is read once for all who ask for the same."""

from ssepool.core.topics import Subscription
from ssepool.http.wishes import MAX_QUERY_BYTES, MAX_WISHES, Wish, Wishes


def wish(name: str = "room:blue", **more: object) -> Wish:
    return Wish(Subscription.of([name], private=True), more.get("data"))


def test_the_same_query_has_the_same_wish() -> None:
    wishes, first = Wishes(), wish()
    assert wishes.get(b"topic=room:blue") is None
    wishes.add(b"topic=room:blue", first)
    assert wishes.get(b"topic=room:blue") is first
    assert wishes.get(b"topic=room:blue&topic=room:red") is None


def test_a_wish_that_something_is_done_to_later_is_never_shared() -> None:
    wishes = Wishes()
    wishes.add(b"topic=a&data=1", wish(data=1))
    wishes.add(b"pattern=a/*", Wish(Subscription.of(patterns=["a/*"], compiled=False), None))
    wishes.add(b"topic=" + b"x" * MAX_QUERY_BYTES, wish())
    assert len(wishes) == 0


def test_what_is_asked_for_again_outlives_any_number_of_others_in_bounded_memory() -> None:
    wishes, wanted = Wishes(), wish()
    wishes.add(b"topic=wanted", wanted)
    wishes.add(b"topic=once", wish("once"))
    for number in range(5 * MAX_WISHES):
        wishes.add(b"topic=%d" % number, wish(str(number)))
        if number % 100 == 0:
            assert wishes.get(b"topic=wanted") is wanted
        assert len(wishes) <= 2 * MAX_WISHES
    assert wishes.get(b"topic=once") is None
