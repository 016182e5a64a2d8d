"""Messages: what a node writes, another one reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from parts import report_of
from ssepool.brokers.base import MAX_MESSAGE_BYTES
from ssepool.config import KiB
from ssepool.core.audit import Entry
from ssepool.core.bans import MAX_BAN_SECONDS, MAX_BANS, Bans
from ssepool.core.pool import Pool
from ssepool.core.revocations import Revocation
from ssepool.core.rights import Right
from ssepool.core.tickets import Ticket
from ssepool.runtime.cluster import messages
from ssepool.runtime.cluster.messages import ConnectionInfo, Message, Page, Question, TopicNames

KINDS: list[type[Question[Any]]] = Question.__subclasses__()

INFO = ConnectionInfo(
    "abc-0-1", "open", "ann", "127.0.0.1", ("a", "b"), ("c/*",), msgspec.Raw(b'{"x":[1]}'), 1.5, 2, 3, 4
)

ENTRY = Entry(
    1.5, "kick", "DELETE", "/connections", {"user": "ann", "seconds": 30.0}, None, "op", "me", "t1", True, 200
)

REPORT = report_of(Pool(), published=3)

TICKET = Ticket(("a",), ("c/*",), (Right("a"), Right("c/*", "urlpattern")))

QUESTIONS: dict[str, list[Question[Any]]] = {
    "connections": [
        messages.FindConnections(10),
        messages.FindConnections(1, "a", "ann", "::1", "open", ("abc", 7)),
    ],
    "topics": [messages.FindTopics(10), messages.FindTopics(1, "subscribers", "a/", "a/b")],
    "subscribers": [messages.CountSubscribers([]), messages.CountSubscribers(["a", "b"])],
    "connection": [messages.DescribeConnection("abc-0-1")],
    "kick": [messages.Kick("abc-0-1", 30.0)],
    "kick_all": [messages.KickAll(0.0, "a"), messages.KickAll(30.0, "a", "ann", "::1")],
    "ban": [messages.Ban("f" * 32, 0.5)],
    "new_bans": [messages.Bans([]), messages.Bans([("f" * 32, 0.5)] * 2)],
    "audit": [messages.AskAudit(1000)],
    "revoke": [messages.Revoke(Revocation(subject="u1", issued_before=1.5, until=2.0)), messages.Revoke(Revocation())],
    "bans": [messages.AskBans()],
    "message": [messages.Receive("abc-0-1", "token", data) for data in (None, "text", [1, {"x": 2.5}], "\u2028\x00")],
    "ticket": [messages.UseTicket("abc-xyz")],
    "report": [messages.AskReport(), messages.AskReport(True)],
    "resize": [messages.Resize(7)],
    "drain": [messages.Drain(0.5)],
}

ANSWERS: dict[str, list[Any]] = {
    "connections": [Page([]), Page([INFO, INFO], True)],
    "topics": [TopicNames([]), TopicNames(["a", "b"], True)],
    "subscribers": [[], [(3, 0), (0, 2)]],
    "connection": [INFO, None],
    "kick": [True, False],
    "kick_all": [0, 10**6],
    "ban": [None],
    "new_bans": [None],
    "audit": [[], [ENTRY, msgspec.structs.replace(ENTRY, allowed=False, why="no", passed_over=3)]],
    "revoke": [None],
    "bans": [[], [("f" * 32, 0.5)]],
    "message": ["accepted", "invalid_token", "not_found"],
    "ticket": [None, TICKET, msgspec.structs.replace(TICKET, subject="ann", data={"x": [1]}, expires_at=9.5)],
    "report": [REPORT, msgspec.structs.replace(REPORT, cells="ffo")],
    "resize": [True],
    "drain": [True],
}


def test_each_kind_is_that_of_one_question_and_none_is_a_word_of_the_cluster_itself() -> None:
    kinds = [kind.kind for kind in KINDS]
    assert len({*kinds, messages.HERE, messages.BYE, messages.ANSWER}) == len(kinds) + 3


def test_the_tables_of_these_tests_are_complete() -> None:
    kinds = {kind.kind for kind in KINDS}
    assert set(QUESTIONS) == set(ANSWERS) == kinds


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_question_is_read_as_it_was_written(kind: type[Question[Any]]) -> None:
    for question in QUESTIONS[kind.kind]:
        assert type(question) is kind
        assert msgspec.json.decode(msgspec.json.encode(question), type=kind) == question


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_answer_is_read_as_it_was_written(kind: type[Question[Any]]) -> None:
    for answer in ANSWERS[kind.kind]:
        data = msgspec.json.encode(answer)
        read = msgspec.json.decode(data, type=kind.answer)
        assert type(read) is type(answer)
        assert msgspec.json.encode(read) == data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_answer_of_another_shape_is_refused(kind: type[Question[Any]]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'["not this"]', type=kind.answer)


@pytest.mark.parametrize(
    "message",
    [
        Message("here", "abc"),
        Message("report", "abc", "def", 3, msgspec.Raw(b'{"cells":true}')),
        Message("answer", "abc", "def", 3),
    ],
)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    data = msgspec.json.encode(message)
    read = msgspec.json.decode(data, type=Message)
    assert (read.kind, read.sender, read.to, read.ref) == (message.kind, message.sender, message.to, message.ref)
    assert bytes(read.body) == bytes(message.body)


def test_as_many_bans_as_there_may_be_fit_into_a_message() -> None:
    bans = Bans()
    for number in range(MAX_BANS):
        bans.add(f"{number:032}", until=MAX_BAN_SECONDS)
    assert len(msgspec.json.encode(bans.left(0.25))) < MAX_MESSAGE_BYTES - KiB


def test_what_a_later_version_adds_to_a_message_does_no_harm() -> None:
    read = msgspec.json.decode(b'{"kind":"here","sender":"abc","urgent":true}', type=Message)
    assert (read.kind, read.sender, read.to, read.ref, bytes(read.body)) == ("here", "abc", None, 0, b"null")
