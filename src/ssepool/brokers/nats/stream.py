"""JetStream: one connection to NATS, and one stream there."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, DeliverPolicy, Header, RawStreamMsg, StorageType

from ssepool.brokers.nats.address import Address
from ssepool.brokers.nats.batch import LOG_SUBJECT
from ssepool.brokers.nats.connection import HEADER_BYTES, LIBRARY_ERRORS, Connection
from ssepool.config import KiB, MiB
from ssepool.errors import BrokerError

MAX_PAYLOAD_BYTES = MiB
"""Bytes of a message at most, also where the server's `max_payload` is more: pages are counted in messages."""

PULL_MESSAGES = 1000
"""Messages that one pull asks for."""

PULL_BYTES = MAX_PAYLOAD_BYTES + 64 * KiB
"""Bytes that one pull asks for: room for at least one message of the largest size."""

PULL_SECONDS = 5.0
"""Seconds that the server keeps such a request; a consumer that is silent for longer is lost."""

PULL_ENDS = ("404", "408", "409 Message Size", "409 Batch Completed")
"""What the server says at the end of such a request; all else ends the consumer."""

RETRY_SECONDS = 0.02
"""Seconds until a request is made again that no server of a cluster took: not all know a new consumer at once."""

INACTIVE_SECONDS = 300.0
"""Seconds after which the server forgets a consumer that asks for nothing more."""

WRONG_SEQUENCE_CODES = (10071, 10164)
"""Codes of the error that another message was last than the one expected."""

NO_JETSTREAM_CODES = (None, 10039, 10076)
"""Codes of the error that there is none; None if nobody answers for it."""

NAME_IN_USE_CODE = 10058
"""Code of the error that somebody else has made the stream meanwhile."""


class Rejected(BrokerError):
    """The server has said that it did not store a message."""


class Overtaken(Exception):
    """Another message is the last one of the stream (or of the subject) than the one expected."""


class NoStream(Exception):
    """The stream is not there, or no longer."""


class Message(NamedTuple):
    """What the stream has at one place."""

    seq: int
    time: float
    """When the server stored it, as seconds since 1970."""
    data: bytes
    pending: int = 0
    """How many messages the stream had behind it when it was delivered."""


class Info(NamedTuple):
    """What the stream has."""

    token: str
    """The one between its name and the rest in all its subjects; made with the stream."""
    messages: int
    first: int
    """The place of the oldest message; without any, the one behind `last`."""
    last: int
    """The place of the newest message that there ever was; 0 before the first."""


class JetStream(Connection):
    """The stream of one history, on a connection of its own."""

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__(address, timeout)
        self._js = self._client.jetstream(timeout=2 * timeout)  # `asking` is what ends a question

    async def info(self) -> Info:
        """Raises `NoStream`, and `Refused` if the stream is somebody else's."""
        name = self._address.name
        try:
            info = await self._js.stream_info(name)
        except nats.js.errors.NotFoundError:
            raise NoStream from None
        except nats.js.errors.ServiceUnavailableError as error:
            raise self._unavailable(error) from None
        match [subject.split(".") for subject in info.config.subjects or []]:
            case [[first, token, ">"]] if first == name:
                return Info(token, info.state.messages, info.state.first_seq, info.state.last_seq)
        raise self._refused(f"there is a stream {name!r} already that is not ssepool's; choose another ?name=")

    async def create(self, subjects: str) -> None:
        """Make the stream, unless it is there by now."""
        name, replicas = self._address.name, self._address.replicas
        try:
            await self._js.add_stream(
                name=name,
                subjects=[subjects],
                description="the history of ssepool",
                storage=StorageType.FILE,
                num_replicas=replicas,
                # What is published again is known by its id, not by a header: let the server remember none.
                duplicate_window=0.1,
            )
        except nats.js.errors.ServiceUnavailableError as error:
            raise self._unavailable(error) from None
        except nats.js.errors.APIError as error:
            if error.err_code != NAME_IN_USE_CODE:
                raise self._refused(f"the stream {name!r} cannot be made: {error.description}") from None

    def _unavailable(self, error: nats.js.errors.APIError) -> BrokerError:
        if error.err_code not in NO_JETSTREAM_CODES:
            return self._translated(error)
        return self._refused(
            "JetStream is not enabled, for this account at least; start nats-server with -js, or set jetstream in its "
            "configuration"
        )

    async def get(self, subjects: str, seq: int) -> Message | None:
        """The first message from a place on; None if there is none."""
        try:
            return _message(await self._js.get_msg(self._address.name, seq, subjects, next=True))
        except nats.js.errors.NotFoundError:
            return None

    async def last(self, subjects: str) -> Message | None:
        """The newest message of a subject, or of all that a wildcard stands for; None if there is none."""
        try:
            return _message(await self._js.get_msg(self._address.name, subject=subjects))
        except nats.js.errors.NotFoundError:
            return None

    async def purge(self, before: int) -> None:
        """Drop all messages before a place."""
        await self._js.purge_stream(self._address.name, seq=before)

    @property
    def most_data(self) -> int:
        return min(self._client.max_payload, MAX_PAYLOAD_BYTES) - HEADER_BYTES

    async def publish(
        self, prefix: str, messages: Sequence[tuple[str, bytes]], last: int, *, unless_there: bool
    ) -> None:
        """Store messages, by subject, right behind each other and behind the place `last`; the newest of them only when
        all others are there.

        Raises `Overtaken` if another message came in between or, with `unless_there`, if one of the subjects other than
        `LOG_SUBJECT` has a message; `NoStream`; and `Rejected`. The newest was not stored then.
        """

        def store(number: int) -> Awaitable[object]:
            subject, data = messages[number]
            headers: dict[str, Any] = {Header.EXPECTED_LAST_SEQUENCE.value: str(last + number)}
            if unless_there and subject != LOG_SUBJECT:
                headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value] = "0"
            return self._js.publish(prefix + subject, data, headers=headers)

        newest = len(messages) - 1
        answers = await asyncio.gather(*(store(number) for number in range(newest)), return_exceptions=True)
        try:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            await store(newest)
        except nats.js.errors.NoStreamResponseError:
            raise NoStream from None
        except nats.js.errors.APIError as error:
            if error.err_code in WRONG_SEQUENCE_CODES:
                raise Overtaken from None
            raise Rejected(f"{self._address.shown}: {error.description}; nothing was published") from None

    @asynccontextmanager
    async def messages(self, start: int) -> AsyncIterator[AsyncIterator[list[Message]]]:
        """All messages from a place on, and then what comes, in pages; a page is asked for when the one before has
        been taken."""
        name, client = self._address.name, self._client
        arrived: deque[Msg] = deque()
        news = asyncio.Event()

        async def take(message: Msg) -> None:
            arrived.append(message)
            news.set()

        async with self.asking():
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox, cb=take)
            consumer = await self._js.add_consumer(
                name,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(start, 1),
                ack_policy=AckPolicy.NONE,
                inactive_threshold=INACTIVE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            )
        try:
            yield self._pages(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer.name}", inbox, arrived, news)
        finally:
            with suppress(*LIBRARY_ERRORS):
                await subscription.unsubscribe()
                await client.publish(f"$JS.API.CONSUMER.DELETE.{name}.{consumer.name}", reply=inbox)

    async def _pages(
        self, subject: str, inbox: str, arrived: deque[Msg], news: asyncio.Event
    ) -> AsyncIterator[list[Message]]:
        pull = msgspec.json.encode(
            {"batch": PULL_MESSAGES, "max_bytes": PULL_BYTES, "expires": int(PULL_SECONDS * 1e9)}
        )
        place = wanted = 0
        deadline = time.monotonic() + self._timeout
        while True:
            async with self.asking(PULL_SECONDS + self._timeout):
                if not wanted:
                    await self._client.publish(subject, pull, reply=inbox)
                    wanted = PULL_MESSAGES
                await news.wait()
            news.clear()
            page: list[Message] = []
            while arrived:
                message = arrived.popleft()
                if status := _status(message):
                    if status.startswith("503") and time.monotonic() < deadline:
                        await asyncio.sleep(RETRY_SECONDS)
                    elif not status.startswith(PULL_ENDS):
                        raise BrokerError(f"{self._address.shown}: following the stream ended: {status}")
                    wanted = 0
                    continue
                metadata = message.metadata
                place, wanted = place + 1, wanted - 1
                if metadata.sequence.consumer != place:
                    raise BrokerError(f"{self._address.shown}: a message was lost on its way")
                at = metadata.timestamp.timestamp()
                page.append(Message(metadata.sequence.stream, at, message.data, metadata.num_pending))
            if page:
                yield page


def _message(message: RawStreamMsg) -> Message:
    assert message.seq is not None and message.time is not None
    return Message(message.seq, message.time.timestamp(), message.data or b"")


def _status(message: Msg) -> str | None:
    """What the server says of a request instead of a message."""
    if message.data or not message.headers or Header.STATUS not in message.headers:
        return None
    return f"{message.headers[Header.STATUS]} {message.headers.get(Header.DESCRIPTION, '')}".strip()
