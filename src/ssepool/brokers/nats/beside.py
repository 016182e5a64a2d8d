"""Beside: a stream beside that of the history, in which each subject keeps its newest message alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ssepool.brokers.nats.stream import Info, JetStream, Message


class Beside:
    """What hubs keep of one kind beside the history: facts, or what has been dropped."""

    def __init__(self, name: str, kind: str, description: str) -> None:
        """`name` is that of the history. Nothing is created before the first look."""
        self.kind = kind
        """What the stream's name and its subjects have behind the history's name."""
        self._prefix = f"{name}.{kind}."
        self._description = description

    def subject(self, rest: str) -> str:
        """A subject of the stream."""
        return self._prefix + rest

    async def look(self, js: JetStream) -> Info:
        """What the stream has, in an `asking` block. It is created if it is missing."""
        return await js.look_beside(self.kind, self._description)

    async def get(self, js: JetStream, rest: str) -> Message | None:
        """The message of a subject, in an `asking` block."""
        return await js.newest(js.beside(self.kind), self.subject(rest))

    async def first(self, js: JetStream) -> str | None:
        """What the oldest message's subject has behind the stream's, in an `asking` block; None if there is none."""
        message = await js.after(js.beside(self.kind), self.subject(">"), 0)
        return None if message is None else message.subject.removeprefix(self._prefix)

    async def put(self, js: JetStream, rest: str, data: bytes, last: int | None = None) -> int:
        """Store a message in the place of the one of its subject, in an `asking` block, and return its place. Raises
        `Overtaken` unless that one is at the place `last`, where it is given (0: there is none)."""
        return await js.put(self.subject(rest), data, last)

    async def purge(self, js: JetStream, *, before: int | None = None, rest: str | None = None) -> None:
        """Drop all messages before a place, or those of some subjects, in an `asking` block."""
        subjects = None if rest is None else self.subject(rest)
        await js.purge(before, stream=js.beside(self.kind), subjects=subjects)

    async def delete(self, js: JetStream, seq: int) -> None:
        """Drop a message, in an `asking` block."""
        await js.delete(seq, stream=js.beside(self.kind))

    async def pages(self, js: JetStream, after: int, rest: str = ">") -> AsyncGenerator[list[Message], None]:
        """The messages of some subjects behind a place, that are there now."""
        stream, subjects = js.beside(self.kind), self.subject(rest)
        async with js.asking():
            first = await js.after(stream, subjects, after)
        if first is None:
            return
        async with js.messages(first.seq, subjects, stream=stream, only_now=True) as pages:
            async for messages in pages:
                yield messages
