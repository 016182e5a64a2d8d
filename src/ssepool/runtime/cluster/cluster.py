"""Cluster: what the hubs of one broker tell and ask each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from itertools import count
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from ssepool.brokers.base import MAX_MESSAGE_BYTES
from ssepool.core.report import Node
from ssepool.errors import BrokerError, SSEPoolError
from ssepool.runtime.cluster.messages import ANSWER, BYE, HERE, Message, Question
from ssepool.runtime.cluster.seal import ENCODER, Seal
from ssepool.runtime.tasks import Tasks

logger = logging.getLogger("ssepool")

ANNOUNCE_SECONDS = 1.0
"""Seconds between two announcements of a node."""

FIRST_ANNOUNCE_SECONDS = 0.05
"""Seconds between announcements until this node hears its own."""

GONE_SECONDS = 3.5
"""Seconds without any after which a node counts as gone."""

ANSWER_SECONDS = 1.5
"""Seconds that the other nodes have to answer a question."""

MAX_UNHEARD = 3
"""Announcements of its own in a row that a node has to miss until it listens anew."""

MEET_SECONDS = 10.0
"""Seconds that a worker waits at the most for those that start with it."""

RETRY_SECONDS = 1.0
"""Seconds until the side channel is taken up again when it broke, about."""

Q = TypeVar("Q", bound=Question[Any])
A = TypeVar("A")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a message can raise: msgspec has errors of its own, but not for bytes that are no UTF-8 and for what is
nested too deeply."""


class SideChannel(Protocol):
    """How messages get to the other hubs: a broker's. They may get lost; each node hears its own too."""

    async def send(self, message: bytes) -> None:
        """Give a message to all hubs that listen now. Raises `BrokerError`."""

    def messages(self) -> AsyncIterator[bytes]:
        """What is sent from now on. Never ends by itself, and raises `BrokerError`."""


class Cluster:
    """Who else is there, and a way to ask them. Messages may get lost: questions have a deadline, and what must not be
    lost (events) goes another way.
    """

    def __init__(
        self,
        node: str,
        channel: SideChannel | None,
        tasks: Tasks,
        seal: Seal,
        *,
        broker_timeout: float,
        now: Callable[[], float],
    ) -> None:
        """`node` is this hub's name. Without a channel there is nobody else, and all calls return at once. `seal` is
        what messages are written and believed with. `broker_timeout` bounds an announcement and `now` is the hub's
        clock, both in seconds."""
        self.me = Node(node, socket.gethostname(), os.getpid())
        """This hub, as the others know it."""
        self._channel = channel
        self._tasks = tasks
        self._seal = seal
        self._broker_timeout = broker_timeout
        self._now = now
        self._others: dict[str, tuple[Node, float]] = {}
        """By name, and when each was heard of last."""
        self._handlers: dict[str, tuple[type[Question[Any]], Callable[[Any], Awaitable[Any]]]] = {}
        self._answers: dict[int, asyncio.Queue[Message]] = {}
        """By the question that each answers."""
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
        if self._channel is None:
            return
        self._listening = asyncio.create_task(self._listen())
        self._running = [self._listening, asyncio.create_task(self._announce())]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._heard.wait()

    async def close(self) -> None:
        """Tell the others that this node is going, and stop."""
        if not self._running:
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(Message(BYE, self.me.node))
        except (BrokerError, TimeoutError):
            logger.warning("the other nodes could not be told that this one is going; they will notice")
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        self._running = []

    def work_as(self, worker: int, group: str) -> None:
        """This hub is one of several processes on one port, its workers. Before `open`."""
        self.me = replace(self.me, pid=os.getpid(), group=group, worker=worker)

    async def meet(self, workers: int) -> None:
        """Return when so many workers of this port know of each other as far as this one can tell, or will not soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEET_SECONDS):
                while len(self.group) < workers:
                    self._met.clear()
                    await self._met.wait()

    async def meet_any(self) -> None:
        """Return when another node has been heard of, or none will be soon."""
        if not self._running:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while not self.others:
                    self._met.clear()
                    await self._met.wait()

    # What the hub does with it.

    def on(self, question: type[Q], handler: Callable[[Q], Awaitable[Any]]) -> None:
        """Call `handler(question)` for questions of a type; what it returns is the answer to the node that asks."""
        self._handlers[question.kind] = (question, handler)

    @property
    def dropped(self) -> int:
        """Messages that were not believed."""
        return self._seal.dropped

    @property
    def others(self) -> list[Node]:
        """The other nodes that have been heard of lately, by name."""
        oldest = self._now() - GONE_SECONDS
        self._others = {name: known for name, known in self._others.items() if known[1] > oldest}
        return sorted((node for node, _ in self._others.values()), key=lambda node: node.node)

    @property
    def group(self) -> list[Node]:
        """The workers of this port, this one included, by number; without workers this node alone."""
        fellows = [node for node in self.others if node.group is not None and node.group == self.me.group]
        return sorted([self.me, *fellows], key=lambda node: node.worker or 0)

    def knows(self, node: str) -> bool:
        """Whether another node of this name has been heard of lately."""
        return any(other.node == node for other in self.others)

    async def tell(self, question: Question[None]) -> None:
        """Let all other nodes know something. Raises `BrokerError`."""
        if self._running:
            await self._send(self._message(question))

    def spread(self, question: Question[None]) -> None:
        """As `tell`, soon; if it fails the log says so."""
        if self._running:
            self._tasks.start(self._spread(self._message(question)))

    async def ask(self, question: Question[A], *, nodes: Collection[str]) -> dict[str, A]:
        """The answers of these nodes, by name; those that did not answer in time are left out. Raises `BrokerError`."""
        waiting = set(nodes)
        if not waiting or not self._running:
            return {}
        ref = next(self._refs)
        mailbox = self._answers[ref] = asyncio.Queue()
        answers: dict[str, A] = {}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                to = next(iter(waiting)) if len(waiting) == 1 else None
                await self._send(self._message(question, to, ref))
                while waiting:
                    message = await mailbox.get()
                    if message.sender in waiting:
                        waiting.discard(message.sender)
                        self._read(message, question, answers)
        except TimeoutError:
            names = ", ".join(sorted(waiting))
            logger.warning("%s did not answer (%s) in %g s", names, question.kind, ANSWER_SECONDS)
        finally:
            del self._answers[ref]
        return answers

    # How it works.

    def _message(self, question: Question[Any], to: str | None = None, ref: int = 0) -> Message:
        return Message(question.kind, self.me.node, to, ref, msgspec.Raw(ENCODER.encode(question)))

    def _presence(self) -> Message:
        return Message(HERE, self.me.node, body=msgspec.Raw(ENCODER.encode(self.me)))

    def _read(self, message: Message, question: Question[A], answers: dict[str, A]) -> None:
        try:
            answers[message.sender] = msgspec.json.decode(message.body, type=question.answer)
        except UNREADABLE as error:  # another version of this hub
            logger.warning("node %s answered %r with what is no answer: %s", message.sender, question.kind, error)

    async def _send(self, message: Message) -> None:
        assert self._channel is not None
        data = self._seal.close(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise BrokerError(f"a message of {len(data)} bytes to other nodes exceeds {MAX_MESSAGE_BYTES}")
        await self._channel.send(data)

    async def _spread(self, message: Message) -> None:
        try:
            await self._send(message)
        except BrokerError as error:
            logger.warning("the other nodes could not be told (%s): %s", message.kind, error)

    async def _announce(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._broker_timeout):
                    await self._send(self._presence())
                self._unheard += 1
            except (BrokerError, TimeoutError):
                logger.debug("this node could not be announced; the broker is away")
            if self._heard.is_set() and self._unheard > MAX_UNHEARD:
                self._listen_anew()
            interval = ANNOUNCE_SECONDS if self._heard.is_set() else FIRST_ANNOUNCE_SECONDS
            await asyncio.sleep(interval * (0.9 + 0.2 * random.random()))

    async def _listen(self) -> None:
        assert self._channel is not None
        while True:
            try:
                async with aclosing(self._channel.messages()) as messages:  # type: ignore[type-var]
                    async for data in messages:
                        self._receive(data)
            except BrokerError:
                logger.debug("the side channel broke; it is taken up again")
            await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))

    def _listen_anew(self) -> None:
        """Our own messages no longer come back: the broker has dropped our subscription, or reset its counter."""
        logger.warning("this node does not hear itself any more; it listens anew")
        assert self._listening is not None
        self._listening.cancel()
        self._running.remove(self._listening)
        self._listening = asyncio.create_task(self._listen())
        self._running.append(self._listening)
        self._unheard = 0

    def _receive(self, data: bytes) -> None:
        try:
            message = self._seal.open(data)
            if message is not None:
                self._take(message)
        except UNREADABLE as error:
            # Another version of this hub, or another program that uses the same name.
            logger.warning("a message of the side channel was not understood: %s", error)

    def _take(self, message: Message) -> None:
        if message.sender == self.me.node:
            self._heard.set()
            self._unheard = 0
            return
        if known := self._others.get(message.sender):  # whatever it says: it is there
            self._others[message.sender] = (known[0], self._now())
        if message.to not in (None, self.me.node):
            return
        if message.kind == HERE:
            self._meet(message)
        elif message.kind == BYE:
            self._others.pop(message.sender, None)
        elif message.kind == ANSWER:
            if mailbox := self._answers.get(message.ref):
                mailbox.put_nowait(message)
        elif message.kind in self._handlers:
            kind, handler = self._handlers[message.kind]
            question = msgspec.json.decode(message.body, type=kind)
            self._tasks.start(self._handle(handler(question), message))

    def _meet(self, message: Message) -> None:
        node = msgspec.json.decode(message.body, type=Node)
        if message.sender not in self._others:  # it is new, and should not have to wait until it knows us
            self._tasks.start(self._spread(self._presence()))
        self._others[message.sender] = (node, self._now())
        self._met.set()

    async def _handle(self, answering: Awaitable[Any], message: Message) -> None:
        try:
            answer = await answering
            if message.ref:
                body = msgspec.Raw(ENCODER.encode(answer))
                await self._send(Message(ANSWER, self.me.node, message.sender, message.ref, body))
        except SSEPoolError as error:
            logger.warning("node %s asked for %r, which failed: %s", message.sender, message.kind, error)
        except Exception:  # another node's message must not end this one's listening
            logger.exception("a message %r of node %s could not be handled", message.kind, message.sender)
