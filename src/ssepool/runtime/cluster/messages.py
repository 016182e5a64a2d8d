"""Messages: what the hubs of one broker send each other, as typed structs.

A question is a struct that names the type of its answer; its kind on the wire is `Question.kind`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from ssepool.core.audit import Entry
from ssepool.core.report import NodeReport
from ssepool.core.revocations import Revocation
from ssepool.core.stats import Count
from ssepool.core.tickets import Ticket

Answer = TypeVar("Answer")


class Message(msgspec.Struct, omit_defaults=True):
    """What goes over the broker's side channel."""

    kind: str
    """What this is: a question's kind, or one of `HERE`, `BYE` and `ANSWER`."""
    sender: str
    """The node that sends it."""
    to: str | None = None
    """The node that this is for; None for all."""
    ref: int = 0
    """The question that this asks or answers; 0 if nobody waits for an answer."""
    body: msgspec.Raw = msgspec.Raw(b"null")
    """The struct of the kind, or the answer, as JSON."""
    time: float = 0.0
    """When it was sent, in seconds since the epoch."""


HERE = "here"
"""The sender is there; the body is its `Node`."""
BYE = "bye"
"""The sender goes."""
ANSWER = "answer"
"""The answer to a question."""


class Question(msgspec.Struct, Generic[Answer], frozen=True):
    """Something that other nodes are asked, or told to do."""

    kind: ClassVar[str]
    """Its name on the wire."""
    answer: ClassVar[Any]
    """The type of the answer."""


ConnectionState = Literal["open", "closing"]
"""The state of a connection as others see it."""


class ConnectionInfo(msgspec.Struct, frozen=True):
    """What others may know of a connection: everything but its token."""

    id: Annotated[str, Meta(description="The connection's id, as in its `ssepool.open` event.")]
    state: Annotated[ConnectionState, Meta(description="Whether its stream is open or is being ended.")]
    user: Annotated[str | None, Meta(description="The user that the application gave it.")]
    ip: Annotated[str | None, Meta(description="The client's address.")]
    topics: Annotated[tuple[str, ...], Meta(description="The topics of its subscription, sorted.")]
    patterns: Annotated[tuple[str, ...], Meta(description="The URL Patterns of its subscription, sorted.")]
    data: Annotated[msgspec.Raw, Meta(description="The client's own data, as it gave it when it subscribed.")]
    opened_at: Annotated[float, Meta(description="Unix time in seconds.")]
    events_sent: Annotated[Count, Meta(description="Events written to it.")]
    bytes_sent: Annotated[Count, Meta(description="Bytes written to it.")]
    events_skipped: Annotated[Count, Meta(description="Events that it did not get because it was too slow.")]


class Page(msgspec.Struct):
    """Connections of one node, by slot."""

    connections: list[ConnectionInfo]
    """In the order of their slots."""
    more: bool = False
    """Whether there are others behind them."""


class FindConnections(Question[Page], frozen=True):
    """Which connections are wanted, and how many are to be listed at the most."""

    kind = "connections"
    answer = Page

    limit: int
    """How many at the most."""
    topic: str | None = None
    """Only with this topic or pattern; likewise the next three."""
    user: str | None = None
    """Only of this user."""
    ip: str | None = None
    """Only from this address."""
    state: str | None = None
    """Only in this state."""
    after: tuple[str, int] | None = None
    """Node and slot that come before those to be listed."""


class DescribeConnection(Question[ConnectionInfo | None], frozen=True):
    """What there is to know of one connection; None if it is not there."""

    kind = "connection"
    answer = ConnectionInfo | None

    id: str
    """The connection's id."""


TopicOrder = Literal["name", "subscribers", "events", "bytes", "rate"]
"""By what topics are listed."""


class TopicNames(msgspec.Struct, frozen=True):
    """Names of topics of one node, in order."""

    names: list[str]
    """In order, as many as fit."""
    more: bool = False
    """Whether there are others behind them."""


class FindTopics(Question[TopicNames], frozen=True):
    """Which topics are subscribed to by name, and how many are to be listed at the most."""

    kind = "topics"
    answer = TopicNames

    limit: int
    """How many at the most."""
    sort: TopicOrder = "name"
    """In which order."""
    prefix: str = ""
    """What the names begin with."""
    after: str = ""
    """The name that comes before those to be listed."""


class CountSubscribers(Question[list[tuple[int, int]]], frozen=True):
    """How many connections of a node name each of these topics, and how many others have a pattern that matches it."""

    kind = "subscribers"
    answer = list[tuple[int, int]]

    topics: list[str]
    """The names."""


class Kick(Question[bool], frozen=True):
    """Send a client away and keep it away. False if it is not there."""

    kind = "kick"
    answer = bool

    id: str
    """The connection's id."""
    seconds: float
    """How long the client is kept away; 0 for not at all."""


class KickAll(Question[int], frozen=True):
    """Send all clients of a topic, a user and an address away; the answer says how many."""

    kind = "kick_all"
    answer = int

    seconds: float
    """How long they are kept away; 0 for not at all."""
    topic: str | None = None
    """Only with this topic or pattern; likewise the next two."""
    user: str | None = None
    """Only of this user."""
    ip: str | None = None
    """Only from this address."""


class Ban(Question[None], frozen=True):
    """Keep a client away that another node has kicked."""

    kind = "ban"
    answer = None

    fingerprint: str
    """What the client is recognised by."""
    seconds: float
    """How long it is kept away."""


class Bans(Question[None], frozen=True):
    """Keep clients away that another node has kicked together."""

    kind = "new_bans"
    answer = None

    left: list[tuple[str, float]]
    """What they are recognised by, and for how many seconds. With `MAX_BANS` of them it fits into a message."""


class AskBans(Question[list[tuple[str, float]]], frozen=True):
    """Whom a node keeps away: fingerprints, and for how many seconds more. With `MAX_BANS` it fits into a message."""

    kind = "bans"
    answer = list[tuple[str, float]]


class Revoke(Question[None], frozen=True):
    """Take grants back that were taken back on another node."""

    kind = "revoke"
    answer = None

    revocation: Revocation
    """Which grants."""


Outcome = Literal["accepted", "invalid_token", "not_found"]
"""What became of a client's own data."""


class Receive(Question[Outcome], frozen=True):
    """Hand a client's own data to the `on_message` hooks of its node."""

    kind = "message"
    answer = Outcome

    id: str
    """The connection's id."""
    token: str
    """What the client proves itself with."""
    data: Any
    """The client's data."""


class UseTicket(Question[Ticket | None], frozen=True):
    """Use a ticket up. None if it does not count (any more)."""

    kind = "ticket"
    answer = Ticket | None

    name: str
    """The ticket's name, which begins with the node that made it."""


class AskReport(Question[NodeReport], frozen=True):
    """The numbers of a process, on request with the state of each slot as a letter."""

    kind = "report"
    answer = NodeReport

    cells: bool = False
    """Whether the state of each slot is wanted."""


class AskAudit(Question[list[Entry]], frozen=True):
    """The last of what operators did at one process, and of what it refused, the newest first, as many as fit into a
    message."""

    kind = "audit"
    answer = list[Entry]

    limit: int
    """How many at the most."""


class Resize(Question[bool], frozen=True):
    """Change the number of slots of one process."""

    kind = "resize"
    answer = bool

    size: int
    """The new number of slots."""


class Drain(Question[bool], frozen=True):
    """Send all clients of one process away, evenly over these seconds."""

    kind = "drain"
    answer = bool

    seconds: float
    """The time over which the clients are sent away."""
