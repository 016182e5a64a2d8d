"""A side channel in memory, which does with the messages of nodes whatever a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec

from ssepool.errors import BrokerError
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.messages import Message
from ssepool.runtime.cluster.seal import MAC_BYTES, Seal
from ssepool.runtime.tasks import Tasks
from virtual import now

Fate = Callable[[Message], Iterable[float]]
"""After how many seconds a message arrives: never, once or more often."""


def arrives(message: Message) -> Iterable[float]:
    """The fate of a message where nothing goes wrong."""
    return (0.0,)


KEY = b"of these tests"


def seal(**options: Any) -> Seal:
    """What the nodes of a test believe each other by. In their world it is always 1970."""
    return Seal(KEY, **{"now": lambda: 0.0, "wall_clock": lambda: 0.0, **options})


def sealed(content: bytes) -> bytes:
    """These bytes as a node would write them."""
    return seal()._code(content) + content


class Channel:
    """What all nodes have in common."""

    def __init__(self) -> None:
        self.fate: Fate = arrives
        self.sent: list[Message] = []
        self.mailboxes: dict[asyncio.Queue[bytes | None], None] = {}

    def deliver(self, data: bytes) -> None:
        """Let all that listen now hear something."""
        for mailbox in self.mailboxes:
            mailbox.put_nowait(data)

    def say(self, kind: str, sender: str, body: Any = None, **fields: Any) -> None:
        """Let all hear a message of a node that may not exist."""
        self.deliver(seal().close(Message(kind, sender, body=msgspec.Raw(msgspec.json.encode(body)), **fields)))

    def of_kind(self, kind: str) -> list[Message]:
        """What has been sent of one kind."""
        return [message for message in self.sent if message.kind == kind]


class Port:
    """The side channel of one node."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.refuses = False
        """Whether nothing can be sent."""
        self.hangs = False
        """Whether sending never comes to an end."""
        self.listened = 0
        """How often somebody began to listen."""
        self._mailbox: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def send(self, data: bytes) -> None:
        if self.refuses:
            raise BrokerError("refused on purpose")
        if self.hangs:
            await asyncio.Event().wait()
        message = msgspec.json.decode(data[MAC_BYTES:], type=Message)
        self.channel.sent.append(message)
        for seconds in self.channel.fate(message):
            asyncio.get_running_loop().call_later(seconds, self.channel.deliver, data)

    async def messages(self) -> AsyncIterator[bytes]:
        self.listened += 1
        mailbox = self._mailbox = asyncio.Queue()
        self.channel.mailboxes[mailbox] = None
        try:
            while (data := await mailbox.get()) is not None:
                yield data
            raise BrokerError("broken on purpose")
        finally:
            self.channel.mailboxes.pop(mailbox, None)

    def break_off(self) -> None:
        """End the listening with an error."""
        self._mailbox.put_nowait(None)

    def deafen(self) -> None:
        """Hear nothing any more, without a word of it, until somebody listens anew."""
        self.channel.mailboxes.pop(self._mailbox, None)


def member(name: str, channel: Port | None, **options: Any) -> Cluster:
    """A node of a cluster, not opened."""
    with_seal = options.pop("seal", None) or seal(now=now())
    return Cluster(name, channel, Tasks(), with_seal, **{"broker_timeout": 5.0, "now": now(), **options})


@contextlib.asynccontextmanager
async def opened(*nodes: Cluster) -> AsyncIterator[None]:
    """Open nodes one after the other, and close them again."""
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            await node.open()
            stack.push_async_callback(node.close)
        yield


async def met(*nodes: Cluster) -> None:
    """Let time pass until nodes that were just opened know each other."""
    await asyncio.sleep(2.0)
    names = {node.me.node for node in nodes}
    assert all({other.node for other in node.others} | {node.me.node} == names for node in nodes)
