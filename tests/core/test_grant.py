"""Grants: one bad entry refuses the whole, and what a client is given depends on the effect of its rights alone."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from ssepool import Event
from ssepool.core.grant import ANYBODY, STRANGER, Grant, check_publishable, effect
from ssepool.core.rights import EVERYTHING, NOTHING, Rights
from ssepool.core.topics import Pattern, Subscription, TopicIndex
from ssepool.errors import Forbidden, InvalidGrant

NEWS = Rights("news", {"match": "public/*", "match_type": "urlpattern"})


def to(*topics: str, patterns: tuple[str, ...] = ()) -> Subscription:
    return Subscription.of(topics, patterns)


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": ""},
        {"subject": 7},
        {"subject": "x" * 257},
        {"issuer": ""},
        {"token_id": []},
        {"subscribe": "news"},
        {"subscribe": {"match": "news"}},
        {"subscribe": 7},
        {"subscribe": ["news", 7]},
        {"publish": [{"match": "(", "match_type": "urlpattern"}]},
        {"publish_parts": "id"},
        {"publish_parts": ["type"]},
        {"admin": ["everything"]},
        {"admin": [["kick"]]},
        {"expires_at": "tomorrow"},
        {"expires_at": True},
        {"expires_at": float("nan")},
        {"expires_at": 10**400},
        {"issued_at": float("inf")},
    ],
)
def test_a_grant_with_one_bad_entry_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidGrant):
        Grant(**fields)


def test_a_grant_shows_nothing_personal() -> None:
    grant = Grant(subject="ann", subscribe=["secret"], data={"iban": "DE00"}, expires_at=7)
    assert repr(grant) == "<Grant subject='ann' issuer=None expires_at=7>"


@pytest.mark.parametrize(
    ("wanted", "grant", "given"),
    [
        (to("news"), STRANGER, to("news")),
        (to("news"), Grant(subscribe=["news"]), Subscription.of(["news"], private=True)),
        (to("news"), Grant(subscribe=["*"]), Subscription.of(["news"], private=True)),
        (to("news"), ANYBODY, Subscription.of(["news"], private=True)),
        (to("ssepool/pool"), ANYBODY, Subscription.of(["ssepool/pool"], private=True)),
        (to("ssepool/pool"), Grant(admin=["metrics"]), Subscription.of(["ssepool/pool"], private=True)),
        (to("ssepool/pool"), Grant(subscribe=["*"]), None),
        (to("room"), STRANGER, None),
        (to("news", "room"), STRANGER, None),  # nothing is left out in silence
        (
            to("news", "room"),
            Grant(subscribe=["room"]),
            Subscription(frozenset(["news", "room"]), frozenset(), True, frozenset(["news"])),
        ),
        (to(patterns=("public/:x",)), STRANGER, to(patterns=("public/:x",))),
        (to(patterns=("room/:x",)), STRANGER, None),
        (to(patterns=("*",)), STRANGER, None),
        (to(patterns=("room/:x",)), Grant(subscribe=["room/1", "room/2"]), None),
        (to(patterns=("*",)), Grant(subscribe=["*"]), Subscription.of((), ["*"], private=True)),
        (
            to("room", patterns=("public/:x",)),
            Grant(subscribe=["room"]),
            Subscription(
                frozenset(["room"]), frozenset([Pattern("public/:x")]), True, frozenset([Pattern("public/:x")])
            ),
        ),
    ],
)
def test_rights_are_reduced_to_their_effect(wanted: Subscription, grant: Grant, given: Subscription | None) -> None:
    if given is None:
        with pytest.raises(Forbidden):
            effect(wanted, grant, NEWS)
    else:
        assert effect(wanted, grant, NEWS) == given


def test_everybody_with_the_right_to_a_room_has_an_equal_subscription() -> None:
    given = {effect(to("room"), Grant(subject=f"u{n}", subscribe=["room", f"users/u{n}"]), NOTHING) for n in range(100)}
    assert len(given) == 1


def test_an_effect_that_was_seen_before_is_that_of_the_same_rights_alone() -> None:
    own, room = to("ssepool/pool"), to("room")
    for _ in range(2):  # the second time all of them are remembered
        assert effect(own, Grant(admin=["metrics"]), NOTHING).private
        with pytest.raises(Forbidden):
            effect(own, Grant(subscribe=EVERYTHING, admin=["kick"]), EVERYTHING)
        assert effect(room, Grant(subscribe=["room"]), NOTHING).private
        assert not effect(room, Grant(subscribe=["other"]), EVERYTHING).private
        with pytest.raises(Forbidden):
            effect(room, Grant(subscribe=["other"]), NOTHING)


def test_a_private_event_of_two_topics_is_for_whoever_may_read_one_of_them() -> None:
    wanted = to("news", "room", patterns=("public/:x",))
    mixed = effect(wanted, Grant(subscribe=["room"]), NEWS)
    index: TopicIndex[str] = TopicIndex()
    index.add(mixed, "mixed")
    for topics, private, expected in [
        (("news",), False, True),
        (("news",), True, False),
        (("room",), True, True),
        (("room", "news"), True, True),
        (("news", "room"), True, True),
        (("public/1",), False, True),
        (("public/1",), True, False),
        (("public/1", "room"), True, True),
    ]:
        assert mixed.matches(topics, private) is expected, (topics, private)
        assert (index.match(topics, private) == ["mixed"]) is expected, (topics, private)


PUBLISHER = Grant(publish=["chat/1", "chat/2"])


@pytest.mark.parametrize(
    ("event", "grant", "allowed"),
    [
        (Event("x", ["chat/1"], private=True), PUBLISHER, True),
        (Event("x", ["chat/1", "chat/2"], private=True), PUBLISHER, True),
        (Event("x", ["chat/1", "chat/3"], private=True), PUBLISHER, False),
        (Event("x", ["chat/1"]), PUBLISHER, False),
        (Event("x", ["chat/1"]), Grant(publish=["chat/1"], publish_parts=["public"]), True),
        (Event("x", ["chat/1"], id="7", private=True), PUBLISHER, False),
        (Event("x", ["chat/1"], id="7", private=True), Grant(publish=["*"], publish_parts=["id"]), True),
        (Event("x", ["chat/1"], retry=1000, private=True), PUBLISHER, False),
        (Event("x", ["chat/1"], retry=1000, private=True), Grant(publish=["*"], publish_parts=["retry"]), True),
        (Event("x", ["chat/1"], id="7", retry=1000), ANYBODY, True),
        (Event("x", ["ssepool/pool"], private=True), ANYBODY, False),
        (Event("x", ["chat/1"], private=True), STRANGER, False),
        (Event("x", ["chat/1"], private=True), Grant(subscribe=["chat/1"]), False),
    ],
)
def test_publishing_takes_the_right_to_every_topic_and_to_what_is_decided(
    event: Event, grant: Grant, allowed: bool
) -> None:
    if allowed:
        check_publishable(event, grant)
    else:
        with pytest.raises(Forbidden):
            check_publishable(event, grant)


def test_nobody_has_nothing() -> None:
    assert (STRANGER.subscribe, STRANGER.publish, STRANGER.admin) == (NOTHING, NOTHING, frozenset())
    assert Grant() == STRANGER and ANYBODY.subscribe == EVERYTHING


def test_the_rights_of_one_for_another_make_a_grant_like_any_other() -> None:
    rights = Grant(subscribe=["room"], publish=["chat/1"], publish_parts=["id"], admin=["metrics"])
    who: dict[str, Any] = {"data": {"n": 1}, "expires_at": 9.0, "issued_at": 1.0, "token_id": "t"}
    made = rights.held_by("u1", "me", **who)
    assert type(made) is Grant
    assert made == Grant(
        subject="u1",
        issuer="me",
        subscribe=["room"],
        publish=["chat/1"],
        publish_parts=["id"],
        admin=["metrics"],
        **who,
    )
    for change in (lambda: setattr(made, "subject", "u2"), lambda: delattr(made, "subject")):
        with pytest.raises(FrozenInstanceError):
            change()
