"""Feeds: which of them there are, and which of them an event belongs to."""

from __future__ import annotations

import pytest

from parts import Paper, Streams, delivered
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry
from ssepool.core.frames import BEATING, COMMENTS, DIALECT, Dialect
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.errors import InvalidTopic


@pytest.fixture
def streams() -> Streams:
    return Streams()


def feed_of(link: Paper) -> object:
    assert link.feed is not None
    return link.feed


def test_equal_subscriptions_share_a_feed_and_others_do_not(streams: Streams) -> None:
    one, equal = (streams.paper(Subscription.of(["a", "b"], ["c/*"])) for _ in range(2))
    other = streams.paper(Subscription.of(["a", "b"], ["c/*"], private=True))
    assert feed_of(one) is feed_of(equal)
    assert feed_of(other) is not feed_of(one)
    assert len(streams.feeds) == 2


def test_an_equal_subscription_is_kept_once_for_all(streams: Streams) -> None:
    first, equal = Subscription.of(["a"]), Subscription.of(["a"])
    assert streams.feeds.shared(equal) is equal  # nobody has it yet
    streams.paper(first)
    assert streams.feeds.shared(equal) is first


async def test_patterns_that_differ_in_names_share_a_feed_and_keep_their_words(streams: Streams) -> None:
    first, equal = Subscription.of(patterns=["a/:id"]), Subscription.of(patterns=["a/:name"])
    links = [streams.paper(subscription) for subscription in (first, equal)]
    assert feed_of(links[0]) is feed_of(links[1])
    assert streams.feeds.shared(equal).keys == ("a/:name",)
    assert streams.feeds.shared(Subscription.of(patterns=["a/:id"])) is first
    streams.publish("one", topic="a/1")
    await delivered(streams)
    assert [link.events() for link in links] == [["one"], ["one"]]


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        (Subscription.of(["a"]), ["a"]),
        (Subscription.of(["a"], private=True), ["a", "secret a"]),
        (Subscription.of(["b", "c"]), ["b"]),
        (Subscription.of((), ["d/*"]), ["d/1"]),
        (Subscription.of(["a"], ["d/*"], private=True), ["a", "secret a", "d/1", "secret d/1"]),
        (Subscription.of(["d"]), []),
    ],
)
async def test_a_feed_gets_the_events_of_its_subscription_and_no_others(
    streams: Streams, subscription: Subscription, expected: list[str]
) -> None:
    link = streams.paper(subscription)
    for topic in ("a", "b", "d/1"):
        streams.publish(topic, topic=topic)
        streams.publish(f"secret {topic}", topic=topic, private=True)
    await delivered(streams)
    assert link.events() == expected


async def test_an_event_of_several_topics_comes_once(streams: Streams) -> None:
    link = streams.paper(Subscription.of(["a", "b"]))
    streams.feeds.dispatch([Entry(1, None, ("a", "b"), chunk(b"data: both\n\n"))])
    await delivered(streams)
    assert link.events() == ["both"]


async def test_entries_are_counted_whether_anybody_wants_them_or_not(streams: Streams) -> None:
    streams.publish("one", "two")
    assert streams.feeds.dispatched == 2
    streams.paper()
    streams.paper(Subscription.of(["news", "sport"]))
    streams.publish("three")
    assert streams.feeds.dispatched == 3
    streams.feeds.announce("news", "is not published", type="ssepool.test")
    streams.feeds.announce_loss()
    assert streams.feeds.dispatched == 3


async def test_who_joins_gets_what_comes_from_then_on(streams: Streams) -> None:
    early = streams.paper()
    streams.publish("before")
    late = streams.paper()
    streams.publish("after")
    await delivered(streams)
    assert early.events() == ["before", "after"]
    assert late.events() == ["after"]


async def test_a_feed_goes_with_its_last_connection(streams: Streams) -> None:
    first, second = streams.paper(), streams.paper()
    feed = first.feed
    assert feed is not None
    first.end(Reason.CLIENT_CLOSED)
    streams.feeds.drop(feed)
    assert (len(streams.feeds), streams.feeds.listeners("news")) == (1, [feed])
    second.end(Reason.CLIENT_CLOSED)
    streams.feeds.drop(feed)
    assert (len(streams.feeds), streams.feeds.listeners("news")) == (0, [])
    newcomer = streams.paper()
    streams.feeds.drop(feed)  # the old one once more must not take the new one's place
    assert newcomer.feed is not feed
    assert streams.feeds.listeners("news") == [newcomer.feed]
    streams.publish("news")
    await delivered(streams)
    assert newcomer.events() == ["news"]


@pytest.mark.parametrize(("data", "text"), [("as it is", b"as it is"), ({"a": [1]}, b'{"a":[1]}')])
async def test_an_announcement_reaches_who_listens_now_and_is_kept_nowhere(
    streams: Streams, data: object, text: bytes
) -> None:
    open_to_all = streams.paper()
    private = streams.paper(Subscription.of(["news"], private=True))
    other = streams.paper(Subscription.of(["sport"]))
    streams.feeds.announce("news", data, type="ssepool.test")
    await delivered(streams)
    expected = b"event: ssepool.test\ndata: " + text + b"\n\n"  # without an id, to which nobody could come back
    assert (open_to_all.written, private.written, other.written) == (expected, expected, b"")
    assert open_to_all.feed is not None
    assert open_to_all.feed.entries == []
    late = streams.paper()
    await delivered(streams)
    assert late.written == b""


def test_an_announcement_that_nobody_hears_is_not_even_encoded(streams: Streams) -> None:
    streams.feeds.announce("news", object(), type="ssepool.test")
    with pytest.raises(InvalidTopic):
        streams.feeds.announce("", "x", type="ssepool.test")


async def test_a_loss_is_told_to_all_behind_what_came_before(streams: Streams) -> None:
    link, other = streams.paper(), streams.paper(Subscription.of(["sport"]))
    link.room_left = 0
    streams.publish("before")
    streams.feeds.announce_loss()
    streams.publish("after")
    await delivered(streams)
    link.make_room()
    assert link.events() == ["before", "ssepool.gap", "after"]
    assert other.written == b'event: ssepool.gap\ndata: {"requested":null,"resumed":null,"reason":"broker_lost"}\n\n'


def follower(streams: Streams, dialect: Dialect) -> Paper:
    link = Paper(streams.links, dialect)
    streams.give_slot(link)
    streams.feeds.join(link, Subscription.of(["news"]))
    link.flush()
    return link


async def test_a_loss_is_told_in_the_dialect_of_each_and_in_its_place(streams: Streams) -> None:
    done = Dialect.of(own_events=False, final="[DONE]")
    own, beating, bare, other = (follower(streams, dialect) for dialect in (DIALECT, BEATING, COMMENTS, done))
    assert feed_of(own) is feed_of(beating) is not feed_of(bare)
    assert feed_of(bare) is feed_of(other)
    streams.publish("before")
    streams.feeds.announce_loss()
    streams.publish("after")
    await delivered(streams)
    for link in own, beating:
        assert link.events() == ["before", "ssepool.gap", "after"]
    for link in bare, other:
        assert link.events() == ["before", "after"]
        assert b"data: before\n\n: ssepool.gap {" in link.written
    feeds = {link.feed for link in (own, beating, bare, other)}
    for link in own, beating, bare, other:
        link.end(Reason.CLIENT_CLOSED)
    for feed in feeds:
        assert feed is not None
        streams.feeds.drop(feed)
    assert len(streams.feeds) == 0


def test_who_has_no_events_of_the_hubs_shares_its_subscription_with_its_like(streams: Streams) -> None:
    bare = follower(streams, COMMENTS)
    equal = Subscription.of(["news"])
    assert bare.feed is not None
    assert streams.feeds.shared(equal, COMMENTS) is bare.feed.subscription
    assert streams.feeds.shared(equal) is equal
