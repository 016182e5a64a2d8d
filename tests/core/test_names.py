"""Names: entries found by the ids that their publishers chose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssepool.core.event import Entry
from ssepool.core.names import Names

TOPICS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)
STEPS = st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("xy"), TOPICS)), max_size=40)


@given(steps=STEPS)
def test_ids_name_what_is_in_it_and_nothing_else(steps: list[tuple[str, tuple[str, ...]] | None]) -> None:
    entries: dict[int, Entry] = {}
    names = Names(entries.get)
    for position, step in enumerate(steps, 1):
        if step is not None:
            entries[position] = Entry(position, step[0], step[1], b"")
            names.add(entries[position])
        elif entries:
            oldest = min(entries)
            names.discard(entries[oldest])
            del entries[oldest]
        for id in "xyz":
            named = [entry for entry in entries.values() if entry.id == id]
            newest = {frozenset(entry.topics): entry.position for entry in named}
            for topics in (("a",), ("b", "a"), ("c", "a", "b", "b")):
                assert names.position(id, topics) == newest.get(frozenset(topics))
            assert list(names.positions(id)) == sorted(newest.values()) or len(named) == 1
            of_a = [entry.position for entry in named if "a" in entry.topics]
            assert list(names.positions(id, ["a"])) == of_a or len(named) == 1
    assert len(names) == len({entry.id for entry in entries.values()})
