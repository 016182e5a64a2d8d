"""Cluster: what the hubs of one broker tell and ask each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from ssepool.brokers.base import MAX_MESSAGE_BYTES
from ssepool.errors import BrokerError, SSEPoolError

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub

logger = logging.getLogger("ssepool")

ANNOUNCE = 1.0
"""Seconds between two announcements of a node."""

FIRST = 0.05
"""Seconds between announcements until this node hears its own."""

GONE = 3.5
"""Seconds without any after which a node counts as gone."""

ANSWER = 1.5
"""Seconds that the other nodes have to answer a question."""

UNHEARD = 3
"""Announcements of its own in a row that a node has to miss until it listens anew."""

MEET = 10.0
"""Seconds that a worker waits at the most for those that start with it."""

RETRY = 1.0
"""Seconds until the side channel is taken up again when it broke, about."""

Handler = Callable[[Any], Awaitable[Any]]


class Message(msgspec.Struct, omit_defaults=True):
    """What goes over the broker's side channel."""

    kind: str
    sender: str
    to: str | None = None
    """The node that this is for; None for all."""
    ref: int = 0
    """The question that this asks or answers."""
    body: Any = None


class Node(msgspec.Struct):
    """A hub as the others know it."""

    node: str
    """The name in its connections' ids."""
    host: str
    pid: int
    group: str | None = None
    """Names the workers of one port; None for a hub that is alone in it."""
    worker: int | None = None
    """Its number among them."""


ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Message)


class Cluster:
    """Who else is there, and a way to ask them. Messages may get lost: questions have a deadline, and what must not be
    lost (events) goes another way.

    With a broker in this process there is nobody else, and all calls return at once.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.me = Node(hub.node, socket.gethostname(), os.getpid())
        self._others: dict[str, tuple[Node, float]] = {}
        self._handlers: dict[str, Handler] = {}
        self._answers: dict[int, asyncio.Queue[Message]] = {}
        self._refs = count(1)
        self._running: list[asyncio.Task[None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        """What this node sends comes back to it, so it hears the others too."""
        self._unheard = 0
        """Announcements that have been sent since."""
        self._met = asyncio.Event()
        """Another node has been heard of."""

    # Opening and closing.

    async def open(self) -> None:
        """Listen and be announced. Returns when this node is heard, or will not be soon."""
        if self._hub.log.complete:
            return
        self._listening = asyncio.create_task(self._listen())
        self._running = [self._listening, asyncio.create_task(self._announce())]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER):
                await self._heard.wait()

    async def close(self) -> None:
        """Tell the others that this node is going, and stop."""
        if not self._running:
            return
        try:
            async with asyncio.timeout(ANSWER):
                await self.tell("bye")
        except (BrokerError, TimeoutError):
            logger.warning("the other nodes could not be told that this one is going; they will notice")
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        self._running = []

    def work_as(self, worker: int, group: str) -> None:
        """This hub is one of several processes on one port, its workers. Before `open`."""
        self.me = Node(self.me.node, self.me.host, os.getpid(), group, worker)

    async def meet(self, workers: int) -> None:
        """Return when so many workers of this port know of each other as far as this one can tell, or will not soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEET):
                while len(self.group) < workers:
                    self._met.clear()
                    await self._met.wait()

    # What the hub does with it.

    def on(self, kind: str, handler: Handler) -> None:
        """Call `handler(body)` for messages of a kind; what it returns is the answer to who asks."""
        self._handlers[kind] = handler

    @property
    def others(self) -> list[Node]:
        """The other nodes that have been heard of lately, by name."""
        oldest = monotonic() - GONE
        self._others = {name: known for name, known in self._others.items() if known[1] > oldest}
        return sorted((node for node, _ in self._others.values()), key=lambda node: node.node)

    @property
    def group(self) -> list[Node]:
        """The workers of this port, this one included, by number; without workers this node alone."""
        fellows = [node for node in self.others if node.group is not None and node.group == self.me.group]
        return sorted([self.me, *fellows], key=lambda node: node.worker or 0)

    def knows(self, node: str) -> bool:
        return any(other.node == node for other in self.others)

    async def tell(self, kind: str, body: Any = None) -> None:
        """Let all other nodes know something. Raises `BrokerError`."""
        if self._running:
            await self._send(Message(kind, self.me.node, body=body))

    def spread(self, kind: str, body: Any = None) -> None:
        """As `tell`, soon; if it fails the log says so."""
        if self._running:
            self._hub.tasks.start(self._spread(kind, body))

    async def ask(self, kind: str, body: Any = None, *, nodes: Collection[str]) -> dict[str, Any]:
        """The answers of these nodes, by name; those that did not answer in time are left out. Raises `BrokerError`."""
        waiting = set(nodes)
        if not waiting or not self._running:
            return {}
        ref = next(self._refs)
        mailbox = self._answers[ref] = asyncio.Queue()
        answers: dict[str, Any] = {}
        try:
            async with asyncio.timeout(ANSWER):
                to = next(iter(waiting)) if len(waiting) == 1 else None
                await self._send(Message(kind, self.me.node, to, ref, body))
                while waiting:
                    answer = await mailbox.get()
                    if answer.sender in waiting:
                        waiting.discard(answer.sender)
                        answers[answer.sender] = answer.body
        except TimeoutError:
            logger.warning("%s did not answer (%s) in %g s", ", ".join(sorted(waiting)), kind, ANSWER)
        finally:
            del self._answers[ref]
        return answers

    # How it works.

    async def _send(self, message: Message) -> None:
        data = ENCODER.encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise BrokerError(f"a message of {len(data)} bytes to other nodes exceeds {MAX_MESSAGE_BYTES}")
        await self._hub.broker.send(data)

    async def _spread(self, kind: str, body: Any) -> None:
        try:
            await self.tell(kind, body)
        except BrokerError as error:
            logger.warning("the other nodes could not be told (%s): %s", kind, error)

    async def _announce(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._hub.config.broker_timeout):
                    await self._send(Message("here", self.me.node, body=self.me))
                self._unheard += 1
            except (BrokerError, TimeoutError):
                logger.debug("this node could not be announced; the broker is away")
            if self._heard.is_set() and self._unheard > UNHEARD:
                self._listen_anew()
            interval = ANNOUNCE if self._heard.is_set() else FIRST
            await asyncio.sleep(interval * (0.9 + 0.2 * random.random()))

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._hub.broker.messages()) as messages:  # type: ignore[type-var]
                    async for data in messages:
                        self._receive(data)
            except BrokerError:
                logger.debug("the side channel broke; it is taken up again")
            await asyncio.sleep(RETRY * (0.5 + random.random()))

    def _listen_anew(self) -> None:
        """Nothing says so, but what is sent does not come: the broker has lost who listens, or counts from 1 again."""
        logger.warning("this node does not hear itself any more; it listens anew")
        assert self._listening is not None
        self._listening.cancel()
        self._running.remove(self._listening)
        self._listening = asyncio.create_task(self._listen())
        self._running.append(self._listening)
        self._unheard = 0

    def _receive(self, data: bytes) -> None:
        try:
            message = DECODER.decode(data)
            self._take(message)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            # Another version of this hub, or another program that uses the same name.
            logger.warning("a message of the side channel was not understood: %s", error)

    def _take(self, message: Message) -> None:
        if message.sender == self.me.node:
            self._heard.set()
            self._unheard = 0
            return
        if known := self._others.get(message.sender):  # whatever it says: it is there
            self._others[message.sender] = (known[0], monotonic())
        if message.to not in (None, self.me.node):
            return
        if message.kind == "here":
            if message.sender not in self._others:  # it is new, and should not have to wait until it knows us
                self.spread("here", self.me)
            self._others[message.sender] = (msgspec.convert(message.body, Node), monotonic())
            self._met.set()
        elif message.kind == "bye":
            self._others.pop(message.sender, None)
        elif message.kind == "answer":
            if mailbox := self._answers.get(message.ref):
                mailbox.put_nowait(message)
        elif handler := self._handlers.get(message.kind):
            self._hub.tasks.start(self._handle(handler, message))

    async def _handle(self, handler: Handler, message: Message) -> None:
        try:
            answer = await handler(message.body)
            if message.ref:
                await self._send(Message("answer", self.me.node, message.sender, message.ref, answer))
        except SSEPoolError as error:
            logger.warning("node %s asked for %r, which failed: %s", message.sender, message.kind, error)
        except Exception:  # another node's message must not end this one's listening
            logger.exception("a message %r of node %s could not be handled", message.kind, message.sender)
