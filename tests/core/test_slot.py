"""A slot is made once, forgets each client, and knows when its client was last active."""

from __future__ import annotations

import pytest

from ssepool.core.event import Entry
from ssepool.core.feed import Feed
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import Reason, SlotState
from ssepool.core.topics import Subscription


def feed_with_entry_at(now: float) -> Feed:
    feed = Feed(Subscription.of(["news"]))
    feed.append(Entry(1, "1", ("news",), b"data: x\n\n"), now)
    return feed


def test_a_new_slot_is_free_and_nothing_is_ever_due() -> None:
    slot = Slot(7)
    assert (slot.index, slot.generation, slot.state) == (7, 0, SlotState.FREE)
    assert slot.due == slot.expires_at == slot.drain_at == slot.blocked_at == NEVER
    assert (slot.holder, slot.feed, slot.keys, slot.reason) == (None, None, (), None)


def test_reset_forgets_the_client_and_keeps_index_generation_and_state() -> None:
    slot, fresh = Slot(3, generation=5), Slot(3, generation=5)
    slot.holder, slot.feed, slot.keys, slot.reason = object(), feed_with_entry_at(1.0), (("ip", "::1"),), Reason.IDLE
    slot.cursor = slot.events = slot.bytes = slot.skipped = slot.beat_bytes = 9
    slot.opened_at = slot.received_at = slot.sent_at = 2.0
    slot.expires_at = slot.drain_at = slot.blocked_at = slot.due = 3.0
    slot.reset()
    assert {name: getattr(slot, name) for name in Slot.__slots__} == {
        name: getattr(fresh, name) for name in Slot.__slots__
    }


def test_a_slot_has_no_room_for_attributes_that_nobody_resets() -> None:
    with pytest.raises(AttributeError):
        Slot(0).colour = "red"  # type: ignore[attr-defined]


@pytest.mark.parametrize("attribute", ["opened_at", "received_at", "sent_at"])
def test_activity_is_the_latest_of_opening_receiving_and_sending(attribute: str) -> None:
    slot = Slot(0)
    slot.opened_at = slot.received_at = slot.sent_at = 10.0
    setattr(slot, attribute, 25.0)
    assert slot.active_at() == 25.0


def test_what_its_feed_was_given_is_activity() -> None:
    slot = Slot(0)
    slot.opened_at = 10.0
    slot.feed = feed_with_entry_at(40.0)
    slot.cursor = slot.feed.head
    assert slot.active_at() == 40.0


def test_what_its_feed_was_given_is_activity_before_its_turn_in_the_delivery_has_come() -> None:
    slot = Slot(0)
    slot.opened_at = 10.0
    slot.feed = feed_with_entry_at(40.0)
    slot.cursor = slot.feed.head - 1
    assert slot.active_at() == 40.0


def test_what_its_feed_was_given_before_it_came_is_not_its_activity() -> None:
    slot = Slot(0)
    slot.feed = feed_with_entry_at(40.0)
    slot.opened_at, slot.cursor = 50.0, slot.feed.head
    assert slot.active_at() == 50.0


def test_a_slot_shows_itself() -> None:
    assert repr(Slot(4, generation=2)) == "<Slot 4 free generation=2>"
