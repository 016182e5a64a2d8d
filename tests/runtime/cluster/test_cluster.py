"""Cluster: nodes that share a side channel which loses, delays, doubles and reorders what they say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
import pytest

from channel import Channel, Port, arrives, member, met, opened, sealed
from ssepool.brokers.base import MAX_MESSAGE_BYTES
from ssepool.config import KiB
from ssepool.errors import BrokerError, ConnectionReleased
from ssepool.runtime.cluster.cluster import (
    ANNOUNCE_SECONDS,
    ANSWER_SECONDS,
    GONE_SECONDS,
    MAX_UNHEARD,
    MEET_SECONDS,
    Cluster,
)
from ssepool.runtime.cluster.messages import ANSWER, BYE, HERE, AskReport, Ban, Kick, Message, Receive
from ssepool.runtime.cluster.seal import Seal
from virtual import in_virtual_time, now

KICK = Kick("x-0-1", 1.0)
BAN = Ban("somebody", 1.0)


def names(node: Cluster) -> list[str]:
    return [other.node for other in node.others]


async def took(work: Awaitable[Any]) -> float:
    began = now()()
    await work
    return now()() - began


def answers(node: Cluster, answer: Any = True) -> list[Kick]:
    """Let a node answer, and have what it was asked."""
    asked: list[Kick] = []

    async def handle(question: Kick) -> Any:
        asked.append(question)
        return answer

    node.on(Kick, handle)
    return asked


def but(changed: Callable[[Message], bool], *delays: float) -> Callable[[Message], Iterable[float]]:
    """All arrives, but some messages after these delays, or never."""
    return lambda message: delays if changed(message) else arrives(message)


class Trio:
    """Three nodes on one channel, not opened."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.ports = [Port(self.channel) for _ in range(3)]
        self.a, self.b, self.c = self.nodes = [member(name, port) for name, port in zip("abc", self.ports, strict=True)]


# Who is there.


@in_virtual_time
async def test_nodes_know_each_other_as_soon_as_they_are_open() -> None:
    trio = Trio()
    async with opened(*trio.nodes):
        await asyncio.sleep(0.1)  # much less than until the next announcement
        assert [names(node) for node in trio.nodes] == [["b", "c"], ["a", "c"], ["a", "b"]]
        assert trio.a.others == [trio.b.me, trio.c.me]
        assert (trio.a.knows("b"), trio.a.knows("a"), trio.a.knows("nobody")) == (True, False, False)


@in_virtual_time
async def test_opening_takes_until_a_node_hears_itself() -> None:
    trio = Trio()
    trio.channel.fate = but(lambda message: message.sender == "a", 0.7)
    assert await took(trio.a.open()) == pytest.approx(0.7)
    assert await took(trio.b.open()) == pytest.approx(0.0)
    await trio.a.close()
    await trio.b.close()


@pytest.mark.parametrize("trouble", ["lost", "refused", "hanging"])
@in_virtual_time
async def test_opening_takes_no_longer_than_for_an_answer(trouble: str) -> None:
    channel = Channel()
    channel.fate = but(lambda message: trouble == "lost")
    port = Port(channel)
    port.refuses, port.hangs = trouble == "refused", trouble == "hanging"
    node = member("a", port)
    assert await took(node.open()) == pytest.approx(ANSWER_SECONDS)
    port.refuses = port.hangs = False
    await node.close()


@in_virtual_time
async def test_until_a_node_hears_itself_it_is_announced_often_and_then_at_intervals() -> None:
    trio = Trio()
    port = trio.ports[0]
    port.refuses = True
    await trio.a.open()
    port.refuses = False
    trio.channel.fate = but(lambda message: True)
    await asyncio.sleep(1.0)
    assert 15 <= len(trio.channel.of_kind(HERE)) <= 25
    trio.channel.fate = arrives
    await asyncio.sleep(1.0)
    before = len(trio.channel.of_kind(HERE))
    await asyncio.sleep(10 * ANNOUNCE_SECONDS)
    assert 8 <= len(trio.channel.of_kind(HERE)) - before <= 12
    await trio.a.close()


@in_virtual_time
async def test_an_announcement_that_the_broker_does_not_take_is_given_up() -> None:
    channel = Channel()
    port = Port(channel)
    node = member("a", port, broker_timeout=2.0)
    async with opened(node):
        port.hangs = True
        await asyncio.sleep(2 * ANNOUNCE_SECONDS)
        port.hangs = False
        before = len(channel.sent)
        await asyncio.sleep(4.0)
        assert len(channel.sent) > before


@in_virtual_time
async def test_announcements_that_get_lost_cost_nothing() -> None:
    trio = Trio()
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        for _ in range(10):  # two of three
            trio.channel.fate = but(lambda message: message.kind == HERE)
            await asyncio.sleep(2 * ANNOUNCE_SECONDS)
            trio.channel.fate = arrives
            await asyncio.sleep(1.2 * ANNOUNCE_SECONDS)
            assert [names(node) for node in trio.nodes] == [["b", "c"], ["a", "c"], ["a", "b"]]


@in_virtual_time
async def test_a_node_that_says_nothing_is_gone_and_back_with_its_next_announcement() -> None:
    trio = Trio()
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        trio.channel.fate = but(lambda message: message.sender == "c")
        await asyncio.sleep(GONE_SECONDS - 1.2)
        assert names(trio.a) == ["b", "c"]
        await asyncio.sleep(1.3)
        assert (names(trio.a), names(trio.b)) == (["b"], ["a"])
        trio.channel.fate = arrives
        await asyncio.sleep(1.2)
        assert names(trio.a) == ["b", "c"]


@pytest.mark.parametrize("said", ["something to all", "a question to another", "a kind that nobody knows"])
@in_virtual_time
async def test_a_node_is_there_as_long_as_it_says_anything(said: str) -> None:
    trio = Trio()
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        trio.channel.fate = but(lambda message: message.kind == HERE and message.sender == "c")
        for _ in range(5):
            await asyncio.sleep(GONE_SECONDS - 1)
            if said == "something to all":
                await trio.c.tell(BAN)
            elif said == "a question to another":
                await trio.c.ask(KICK, nodes=["b"])
            else:
                trio.channel.say("of another version", "c")
            await asyncio.sleep(0.1)
            assert names(trio.a) == ["b", "c"]


@in_virtual_time
async def test_what_a_stranger_says_does_not_make_it_a_node() -> None:
    trio = Trio()
    async with opened(trio.a):
        trio.channel.say("ban", "z", BAN)
        trio.channel.say(BYE, "z")
        await asyncio.sleep(0.1)
        assert names(trio.a) == []


@in_virtual_time
async def test_a_node_that_goes_says_so() -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await trio.c.open()
        await met(*trio.nodes)
        await trio.c.close()
        await asyncio.sleep(0.1)
        assert (names(trio.a), names(trio.b)) == (["b"], ["a"])
        await asyncio.sleep(10 * ANNOUNCE_SECONDS)
        assert (names(trio.a), names(trio.b)) == (["b"], ["a"])


@in_virtual_time
async def test_a_new_node_is_answered_at_once_and_once() -> None:
    trio = Trio()
    async with opened(trio.a):
        await asyncio.sleep(0.3)
        before = len(trio.channel.of_kind(HERE))
        trio.channel.say(HERE, "z", {"node": "z", "host": "far", "pid": 1})
        await asyncio.sleep(0.1)
        trio.channel.say(HERE, "z", {"node": "z", "host": "far", "pid": 1})
        await asyncio.sleep(0.1)
        assert [message.sender for message in trio.channel.of_kind(HERE)[before:]] == ["a"]
        assert [(node.node, node.host) for node in trio.a.others] == [("z", "far")]


# The workers of one port.


@in_virtual_time
async def test_the_workers_of_a_port_are_a_group_in_their_order() -> None:
    trio = Trio()
    trio.a.work_as(1, "port")
    trio.b.work_as(0, "port")
    trio.c.work_as(0, "another port")
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        assert [node.node for node in trio.a.group] == [node.node for node in trio.b.group] == ["b", "a"]
        assert trio.c.group == [trio.c.me]
        assert names(trio.c) == ["a", "b"]


@in_virtual_time
async def test_nodes_that_are_no_workers_are_no_group() -> None:
    trio = Trio()
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        assert trio.a.group == [trio.a.me]


@in_virtual_time
async def test_workers_meet_as_soon_as_the_last_one_is_there() -> None:
    trio = Trio()
    for number, node in enumerate(trio.nodes):
        node.work_as(number, "port")
    async with opened(trio.a, trio.b):
        meeting = asyncio.create_task(took(trio.a.meet(3)))
        await asyncio.sleep(4.0)
        assert not meeting.done()
        async with opened(trio.c):
            assert 4.0 <= await meeting < 4.5
            assert await took(trio.c.meet(3)) < 0.5


@in_virtual_time
async def test_workers_do_not_wait_for_ever_for_one_that_does_not_come() -> None:
    trio = Trio()
    trio.a.work_as(0, "port")
    trio.b.work_as(1, "another port")
    async with opened(trio.a, trio.b):
        assert await took(trio.a.meet(2)) == pytest.approx(MEET_SECONDS)
        assert await took(trio.a.meet(1)) == 0.0


# Questions.


@in_virtual_time
async def test_each_node_that_is_asked_answers() -> None:
    trio = Trio()
    asked = answers(trio.b, True), answers(trio.c, False)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        assert await trio.a.ask(KICK, nodes=["b", "c"]) == {"b": True, "c": False}
        assert asked == ([KICK], [KICK])
        assert await trio.a.ask(KICK, nodes=["c"]) == {"c": False}
        assert asked == ([KICK], [KICK, KICK])  # what is for one goes to one


@in_virtual_time
async def test_to_ask_nobody_takes_no_time_and_no_message() -> None:
    trio = Trio()
    async with opened(trio.a):
        before = len(trio.channel.sent)
        assert await took(trio.a.ask(KICK, nodes=[])) == 0.0
        assert len(trio.channel.sent) == before


@in_virtual_time
async def test_an_answer_that_is_late_is_left_out_and_is_none_to_the_next_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trio = Trio()
    answers(trio.b, True)
    answers(trio.c, False)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        late = ANSWER_SECONDS + 0.5
        trio.channel.fate = but(lambda message: (message.kind, message.sender) == (ANSWER, "c"), late)
        began = now()()
        assert await trio.a.ask(KICK, nodes=["b", "c"]) == {"b": True}
        assert now()() - began == pytest.approx(ANSWER_SECONDS)
        assert caplog.messages == [f"c did not answer (kick) in {ANSWER_SECONDS:g} s"]
        answers(trio.c, True)
        trio.channel.fate = but(lambda message: (message.kind, message.sender) == (ANSWER, "c"), 1.0)
        assert await trio.a.ask(KICK, nodes=["c"]) == {"c": True}  # and not what comes meanwhile
        assert trio.a._answers == {}


@in_virtual_time
async def test_two_questions_at_once_each_get_their_own_answers() -> None:
    trio = Trio()

    async def echo(question: Receive) -> Any:
        return question.data

    trio.b.on(Receive, echo)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        delays = iter((0.5, 0.1))  # the second is there first
        trio.channel.fate = lambda message: (next(delays),) if message.kind == ANSWER else (0.0,)
        asking = [trio.a.ask(Receive("x", "y", data), nodes=["b"]) for data in ("accepted", "not_found")]
        assert await asyncio.gather(*asking) == [{"b": "accepted"}, {"b": "not_found"}]


@in_virtual_time
async def test_a_message_that_comes_twice_is_one_answer() -> None:
    trio = Trio()
    asked = answers(trio.b), answers(trio.c)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        # The second of the answers comes later: b's double must not be taken for c's.
        trio.channel.fate = lambda message: (0.0, 0.1) if message.sender != "c" else (0.2,)
        assert await trio.a.ask(KICK, nodes=["b", "c"]) == {"b": True, "c": True}
        assert [len(each) for each in asked] == [2, 2]


@in_virtual_time
async def test_an_answer_of_a_node_that_was_not_asked_counts_for_nothing() -> None:
    trio = Trio()
    answers(trio.b)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        trio.channel.fate = but(lambda message: message.kind == ANSWER, 0.5)
        asking = asyncio.create_task(trio.a.ask(KICK, nodes=["b"]))
        await asyncio.sleep(0.1)
        ref = trio.channel.of_kind("kick")[-1].ref
        trio.channel.say(ANSWER, "c", False, to="a", ref=ref)
        trio.channel.say(ANSWER, "z", False, to="a", ref=ref)
        assert await asking == {"b": True}
        trio.channel.say(ANSWER, "b", False, to="a", ref=ref)  # to a question that is over
        trio.channel.say(ANSWER, "b", False, to="a")
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (ConnectionReleased("it has left"), "node a asked for 'kick', which failed: it has left"),
        (RuntimeError("on purpose"), "a message 'kick' of node a could not be handled"),
    ],
)
@in_virtual_time
async def test_a_question_whose_handler_fails_has_no_answer(
    error: Exception, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    trio = Trio()

    async def fail(question: Kick) -> bool:
        raise error

    trio.b.on(Kick, fail)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        assert await trio.a.ask(KICK, nodes=["b"]) == {}
        assert logged in caplog.messages
        answers(trio.b)
        assert await trio.a.ask(KICK, nodes=["b"]) == {"b": True}


@in_virtual_time
async def test_what_all_are_told_is_answered_by_nobody() -> None:
    trio = Trio()
    told: list[Ban] = []

    async def keep_away(order: Ban) -> None:
        told.append(order)

    for node in trio.nodes:
        node.on(Ban, keep_away)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        await trio.a.tell(BAN)
        await asyncio.sleep(0.1)
        assert told == [BAN, BAN]
        trio.b.spread(BAN)
        await asyncio.sleep(0.1)
        assert told == [BAN] * 4
        assert trio.channel.of_kind(ANSWER) == []


@in_virtual_time
async def test_a_kind_without_a_handler_is_passed_over() -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        assert await trio.a.ask(AskReport(), nodes=["b"]) == {}


# A channel that does not work.


@in_virtual_time
async def test_what_cannot_be_sent_is_an_error_or_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        trio.ports[0].refuses = True
        with pytest.raises(BrokerError, match="refused on purpose"):
            await trio.a.tell(BAN)
        with pytest.raises(BrokerError, match="refused on purpose"):
            await trio.a.ask(KICK, nodes=["b"])
        trio.a.spread(BAN)
        await asyncio.sleep(0.1)
        assert caplog.messages == ["the other nodes could not be told (ban): refused on purpose"]
        trio.ports[0].refuses = False


@in_virtual_time
async def test_sending_that_hangs_is_an_answer_that_does_not_come() -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        trio.ports[0].hangs = True
        assert await took(trio.a.ask(KICK, nodes=["b"])) == pytest.approx(ANSWER_SECONDS)
        trio.ports[0].hangs = False


@in_virtual_time
async def test_a_question_that_is_too_big_is_an_error_and_an_answer_that_is_none_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trio = Trio()
    answers(trio.b, "x" * MAX_MESSAGE_BYTES)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        before = len(trio.channel.sent)
        with pytest.raises(BrokerError, match=rf"a message of \d+ bytes to other nodes exceeds {MAX_MESSAGE_BYTES}"):
            await trio.a.ask(Receive("x", "y", "x" * MAX_MESSAGE_BYTES), nodes=["b"])
        assert "message" not in [message.kind for message in trio.channel.sent[before:]]
        assert await trio.a.ask(KICK, nodes=["b"]) == {}
        assert any("which failed: a message of" in line for line in caplog.messages)
        await trio.a.tell(Receive("x", "y", "x" * (MAX_MESSAGE_BYTES - KiB)))  # type: ignore[arg-type]


@in_virtual_time
async def test_a_channel_that_broke_is_taken_up_again() -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        trio.ports[0].break_off()
        await asyncio.sleep(0.1)
        trio.channel.say(HERE, "z", {"node": "z", "host": "far", "pid": 1})
        await asyncio.sleep(3.0)
        assert trio.ports[0].listened == 2
        assert names(trio.a) == ["b"]  # what was said meanwhile is lost
        assert names(trio.b) == ["a", "z"]


@in_virtual_time
async def test_a_node_that_does_not_hear_itself_listens_anew(caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        trio.ports[0].deafen()
        await asyncio.sleep((MAX_UNHEARD - 1) * ANNOUNCE_SECONDS)
        assert trio.ports[0].listened == 1
        await asyncio.sleep(4 * ANNOUNCE_SECONDS)
        assert trio.ports[0].listened == 2
        assert caplog.messages == ["this node does not hear itself any more; it listens anew"]
        assert names(trio.a) == ["b"]
        await asyncio.sleep(20.0)
        assert (trio.ports[0].listened, trio.ports[1].listened) == (2, 1)


@in_virtual_time
async def test_listening_anew_that_does_not_help_is_not_done_again_at_once() -> None:
    trio = Trio()
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        trio.channel.fate = but(lambda message: message.sender == "a")
        await asyncio.sleep(10 * (MAX_UNHEARD + 1) * ANNOUNCE_SECONDS)
        assert 8 <= trio.ports[0].listened <= 12


@in_virtual_time
async def test_a_node_that_has_never_heard_itself_goes_on_listening() -> None:
    trio = Trio()
    trio.channel.fate = but(lambda message: True)
    async with opened(trio.a):
        await asyncio.sleep(20.0)
        assert trio.ports[0].listened == 1


@in_virtual_time
async def test_while_nothing_can_be_sent_a_node_does_not_think_itself_deaf() -> None:
    trio = Trio()
    async with opened(trio.a):
        trio.ports[0].refuses = True
        await asyncio.sleep(20.0)
        assert trio.ports[0].listened == 1
        trio.ports[0].refuses = False


# What others say that is not understood.


NESTED = b"[" * 200_000

GARBAGE = {
    "nothing": b"",
    "no JSON": b"\x00\xff",
    "no object": b"[1, 2]",
    "no sender": b'{"kind":"here"}',
    "a number for a kind": b'{"kind":1,"sender":"z"}',
    "a body that is no node": b'{"kind":"here","sender":"z","body":{"node":1}}',
    "no body": b'{"kind":"here","sender":"z"}',
    "a question of another shape": b'{"kind":"kick","sender":"z","body":{"name":"somebody"}}',
    "bytes that are no text in the head": b'{"kind":"here","sender":"\xff"}',
    "bytes that are no text in the body": b'{"kind":"here","sender":"z","body":{"node":"\xff","host":"x","pid":1}}',
    "a head without end": b'{"kind":"here","sender":"z","more":' + NESTED,
    "a body without end": b'{"kind":"message","sender":"z","body":' + NESTED,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
@in_virtual_time
async def test_what_is_not_understood_is_logged_and_harms_nothing(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    trio = Trio()
    asked = answers(trio.a)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        with caplog.at_level(logging.WARNING, "ssepool"):
            trio.channel.deliver(sealed(data))
            await asyncio.sleep(0.1)
        assert [line.partition(":")[0] for line in caplog.messages] == [
            "a message of the side channel was not understood"
        ] * (1 if b"kick" in data else 2)
        assert asked == []
        assert (names(trio.a), names(trio.b)) == (["b"], ["a"])
        assert await trio.b.ask(KICK, nodes=["a"]) == {"a": True}
        assert trio.ports[0].listened == 1


@in_virtual_time
async def test_a_kind_of_another_version_is_passed_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    async with opened(trio.a):
        trio.channel.say("of another version", "z", {"anything": [1]}, ref=7)
        await asyncio.sleep(0.1)
    assert caplog.messages == []
    assert {message.kind for message in trio.channel.sent} == {HERE, BYE}


@pytest.mark.parametrize(
    "body", [b'{"not":"this"}', b"7", b'"\xff"', b"[" * 200_000], ids=["object", "number", "no text", "endless"]
)
@in_virtual_time
async def test_an_answer_of_another_shape_is_logged_and_left_out(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    answers(trio.c, False)
    trio.channel.fate = but(lambda message: message.kind == ANSWER, 0.5)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        asking = asyncio.create_task(trio.a.ask(Receive("x", "y", None), nodes=["b"]))
        kicking = asyncio.create_task(trio.a.ask(KICK, nodes=["b", "c"]))
        await asyncio.sleep(0.1)
        for kind in ("message", "kick"):
            ref = trio.channel.of_kind(kind)[-1].ref
            content = b'{"kind":"answer","sender":"b","to":"a","ref":%d,"body":%s}' % (ref, body)
            trio.channel.deliver(sealed(content))
        assert (await asking, await kicking) == ({}, {"c": False})
        assert caplog.messages
        assert (names(trio.a), trio.ports[0].listened) == (["b", "c"], 1)


# What is not for this node, or not to be believed.


@in_virtual_time
async def test_no_body_is_read_of_a_message_for_another_node(caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    asked = answers(trio.a), answers(trio.b)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        for kind in (HERE, "kick", ANSWER):
            trio.channel.say(kind, "z", "no body of this kind", to="c")
        trio.channel.say("kick", "z", KICK, to="b")
        await asyncio.sleep(0.1)
        assert asked == ([], [KICK])
        assert (names(trio.a), caplog.messages) == (["b"], [])


@in_virtual_time
async def test_an_answer_is_for_the_node_that_asks() -> None:
    trio = Trio()
    answers(trio.b)
    answers(trio.c)
    async with opened(*trio.nodes):
        await met(*trio.nodes)
        await trio.a.ask(KICK, nodes=["b", "c"])
        await trio.a.ask(KICK, nodes=["b"])
        assert [message.to for message in trio.channel.of_kind(ANSWER)] == ["a"] * 3
        assert [message.to for message in trio.channel.of_kind("kick")] == [None, "b"]


@in_virtual_time
async def test_a_message_that_no_node_has_written_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    trio = Trio()
    asked = answers(trio.a)
    stranger = Seal(b"another key", wall_clock=lambda: 0.0)
    async with opened(trio.a, trio.b):
        await met(trio.a, trio.b)
        body = msgspec.Raw(msgspec.json.encode(KICK))
        trio.channel.deliver(stranger.close(Message("kick", "b", "a", 7, body)))
        trio.channel.deliver(stranger.close(Message(BYE, "b")))
        trio.channel.deliver(stranger.close(Message(HERE, "z", body=msgspec.Raw(msgspec.json.encode(trio.c.me)))))
        trio.channel.deliver(b'{"kind":"bye","sender":"b"}')
        await asyncio.sleep(0.1)
        assert asked == []
        assert names(trio.a) == ["b"]
        assert (trio.a.dropped, trio.b.dropped) == (4, 4)
        assert len(caplog.messages) == 2  # one of each node


@in_virtual_time
async def test_nodes_of_two_keys_do_not_know_each_other() -> None:
    trio = Trio()
    other = member("d", Port(trio.channel), seal=Seal(b"another key", now=now()))
    async with opened(trio.a, trio.b, other):
        await met(trio.a, trio.b)
        assert (names(trio.a), names(other)) == (["b"], [])
        assert other.dropped > 0


# Without others, and the end.


@in_virtual_time
async def test_without_a_channel_there_is_nobody_else_and_nothing_takes_time() -> None:
    node = member("a", None)

    async def live() -> None:
        await node.open()
        assert (node.others, node.group, node.knows("b")) == ([], [node.me], False)
        assert await node.ask(KICK, nodes=["b"]) == {}
        await node.tell(BAN)
        node.spread(BAN)
        await node.meet(1)
        await node.close()

    assert await took(live()) == 0.0


@in_virtual_time
async def test_what_is_closed_says_goodbye_once_and_leaves_nothing_running() -> None:
    trio = Trio()
    before = asyncio.all_tasks()
    await trio.a.open()
    await asyncio.sleep(5.0)
    await trio.a.close()
    await trio.a.close()
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == before
    assert [message.sender for message in trio.channel.of_kind(BYE)] == ["a"]
    assert not trio.channel.mailboxes
    sent = len(trio.channel.sent)
    assert await trio.a.ask(KICK, nodes=["b"]) == {}
    await trio.a.tell(BAN)
    await asyncio.sleep(10.0)
    assert len(trio.channel.sent) == sent


@pytest.mark.parametrize(("trouble", "seconds"), [("refuses", 0.0), ("hangs", ANSWER_SECONDS)])
@in_virtual_time
async def test_closing_does_not_wait_for_a_channel_that_is_away(
    trouble: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    trio = Trio()
    await trio.a.open()
    setattr(trio.ports[0], trouble, True)
    assert await took(trio.a.close()) == pytest.approx(seconds)
    assert caplog.messages == ["the other nodes could not be told that this one is going; they will notice"]


@in_virtual_time
async def test_closing_stops_a_node_that_listens_anew_or_waits_to() -> None:
    trio = Trio()
    before = asyncio.all_tasks()
    await trio.a.open()
    trio.ports[0].deafen()
    await asyncio.sleep(7 * ANNOUNCE_SECONDS)
    trio.ports[0].break_off()
    await asyncio.sleep(0.1)
    await trio.a.close()
    assert asyncio.all_tasks() == before
