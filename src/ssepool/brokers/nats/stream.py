"""JetStream: a connection to NATS, and one stream there."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, DeliverPolicy, Header, RawStreamMsg, StorageType, StreamInfo

from ssepool.brokers.nats.address import Address
from ssepool.brokers.nats.batch import LOG_SUBJECT
from ssepool.brokers.nats.connection import HEADER_BYTES, LIBRARY_ERRORS, Connection
from ssepool.config import KiB, MiB
from ssepool.errors import BrokerError

MAX_PAYLOAD_BYTES = MiB
"""The largest message that we send, even if the server's `max_payload` is larger: pages are counted in messages."""

PULL_MESSAGES = 1000
"""Messages that one pull asks for."""

PULL_BYTES = MAX_PAYLOAD_BYTES + 64 * KiB
"""Bytes that one pull asks for: room for at least one message of the largest size."""

PULL_SECONDS = 5.0
"""Seconds that the server keeps a pull. A consumer that is silent for longer is lost."""

PULL_ENDS = ("404", "408", "409 Message Size", "409 Batch Completed")
"""How the status begins with which the server ends a pull. Any other status ends the consumer."""

NO_MORE = ("404", "408")
"""How the status begins that ends a pull which does not wait, if there are no more messages."""

RETRY_SECONDS = 0.02
"""Seconds until we repeat a pull that no server of a cluster took, since not all know a new consumer at once."""

SILENT_NANOSECONDS = 4_000_000_000
"""Nanoseconds for which the leader of a stream has not heard from a server that counts as gone; it does each second."""

INACTIVE_SECONDS = 300.0
"""Seconds after which the server forgets a consumer that sends no more pulls."""

WRONG_SEQUENCE_CODES = (10071, 10164)
"""The server's error codes for a message that came too late: another one is the newest than the one it names."""

NO_JETSTREAM_CODES = (None, 10039, 10076)
"""The server's error codes if JetStream is not enabled; None stands for no answer from it."""

GONE_CODES = (10037, 10043, 10057)
"""The server's error codes for a message that was to be deleted and is not there."""

NAME_IN_USE_CODE = 10058
"""The server's error code if another hub has created the stream meanwhile."""


class Rejected(BrokerError):
    """The server has answered that it did not store a message."""


class Overtaken(Exception):
    """Another publisher has stored a message since: the newest of the stream (or subject) is not the expected one."""


class NoStream(Exception):
    """The stream does not exist, or has been deleted."""


class Message(NamedTuple):
    """A message of the stream."""

    seq: int
    """Its place in the stream."""
    time: float
    """The time at which the server stored it, in seconds since 1970."""
    data: bytes
    """Its content; empty in the stream of the history for a message that was not stored by `publish`."""
    pending: int = 0
    """The number of messages that the stream had behind it when the server delivered it."""
    subject: str = ""
    """Where it was published."""


class Info(NamedTuple):
    """The stream at one moment."""

    token: str
    """The token behind the stream's name in all its subjects, made with the stream."""
    messages: int
    """The number of its messages."""
    first: int
    """The place of the oldest message; if there is none, the place behind `last`."""
    last: int
    """The place of the newest message, even if it is no longer there; 0 before the first."""
    bytes: int = 0
    """What its messages take."""


class JetStream(Connection):
    """The stream of one history, on a connection of its own. The caller makes every call but `messages` in an `asking`
    block."""

    def __init__(self, address: Address, timeout: float) -> None:
        """Connect nothing yet. `timeout` is the longest time that a question may take, in seconds."""
        super().__init__(address, timeout)
        self._js = self._client.jetstream(timeout=2 * timeout)  # `asking` ends a question sooner

    async def info(self) -> Info:
        """The stream as it is now. Raises `NoStream`, and `Refused` if the stream is not ssepool's."""
        name = self._address.name
        try:
            info = await self._js.stream_info(name)
        except nats.js.errors.NotFoundError:
            raise NoStream from None
        except nats.js.errors.ServiceUnavailableError as error:
            raise self._unavailable(error) from None
        if (said := _without_majority(info)) is not None:
            raise BrokerError(f"{self._address.shown}: {said}")
        match [subject.split(".") for subject in info.config.subjects or []]:
            case [[first, token, ">"]] if first == name:
                state = info.state
                return Info(token, state.messages, state.first_seq, state.last_seq, state.bytes)
        raise self.refused(f"there is a stream {name!r} already that is not ssepool's; choose another ?name=")

    async def create(self, subjects: str) -> None:
        """Create the stream, unless another hub has done so. Raises `Refused` if the server does not allow it."""
        name, replicas = self._address.name, self._address.replicas
        try:
            await self._js.add_stream(
                name=name,
                subjects=[subjects],
                description="the history of ssepool",
                storage=StorageType.FILE,
                num_replicas=replicas,
                # Repeated events are known by their ids, not by a header, so the server need not remember headers.
                duplicate_window=0.1,
            )
        except nats.js.errors.ServiceUnavailableError as error:
            raise self._unavailable(error) from None
        except nats.js.errors.APIError as error:
            if error.err_code != NAME_IN_USE_CODE:
                raise self.refused(f"the stream {name!r} cannot be made: {error.description}") from None

    def _unavailable(self, error: nats.js.errors.APIError) -> BrokerError:
        if error.err_code not in NO_JETSTREAM_CODES:
            return self._translated(error)
        return self.refused(
            "JetStream is not enabled, for this account at least; start nats-server with -js, or set jetstream in its "
            "configuration"
        )

    async def look_beside(self, kind: str, description: str) -> Info:
        """The stream beside the history's with this kind of messages, in which each subject keeps its newest message
        alone. It is created if it is missing."""
        name = self.beside(kind)
        try:
            state = (await self._js.stream_info(name)).state
        except nats.js.errors.NotFoundError:
            await self._create_beside(name, kind, description)
            return Info(kind, 0, 1, 0)
        return Info(kind, state.messages, state.first_seq, state.last_seq)

    def beside(self, kind: str) -> str:
        """The name of a stream beside the history's."""
        return f"{self._address.name}_{kind}"

    async def _create_beside(self, name: str, kind: str, description: str) -> None:
        try:
            await self._js.add_stream(
                name=name,
                subjects=[f"{self._address.name}.{kind}.>"],
                description=description,
                storage=StorageType.FILE,
                num_replicas=self._address.replicas,
                max_msgs_per_subject=1,
                duplicate_window=0.1,
            )
        except nats.js.errors.APIError as error:
            if error.err_code != NAME_IN_USE_CODE:
                raise self.refused(f"the stream {name!r} cannot be made: {error.description}") from None

    async def put(self, subject: str, data: bytes, last: int | None = None) -> int:
        """Store a message in the stream that has this subject, and return its place. `last` is the place of the newest
        one of the subject, or 0: raises `Overtaken` if it is another."""
        headers: dict[str, Any] = {} if last is None else {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(last)}
        try:
            return (await self._js.publish(subject, data, headers=headers)).seq
        except nats.js.errors.NoStreamResponseError:
            raise NoStream from None
        except nats.js.errors.APIError as error:
            if error.err_code in WRONG_SEQUENCE_CODES:
                raise Overtaken from None
            raise Rejected(f"{self._address.shown}: {error.description}") from None

    async def newest(self, stream: str, subject: str) -> Message | None:
        """The newest message of a subject in another stream than the history's; None if there is none."""
        try:
            return _as_it_is(await self._js.get_msg(stream, subject=subject))
        except nats.js.errors.NotFoundError:
            return None

    async def after(self, stream: str, subjects: str, seq: int) -> Message | None:
        """The first message behind a place of these subjects in another stream; None if there is none."""
        try:
            return _as_it_is(await self._js.get_msg(stream, seq + 1, subjects, next=True))
        except nats.js.errors.NotFoundError:
            return None

    async def purge(self, before: int | None = None, *, stream: str | None = None, subjects: str | None = None) -> None:
        """Drop all messages before a place, or those of some subjects."""
        await self._js.purge_stream(stream or self._address.name, seq=before, subject=subjects)

    async def delete(self, seq: int, *, stream: str | None = None) -> None:
        """Drop the message at a place, if it is there."""
        wish = msgspec.json.encode({"seq": seq, "no_erase": True})
        subject = f"$JS.API.STREAM.MSG.DELETE.{stream or self._address.name}"
        answer = await self._client.request(subject, wish, timeout=2 * self._timeout)
        error = msgspec.json.decode(answer.data).get("error")
        if error is not None and error.get("err_code") not in GONE_CODES:
            raise Rejected(f"{self._address.shown}: {error.get('description')}")

    async def get(self, subjects: str, seq: int) -> Message | None:
        """The first message of these subjects from a place on; None if there is none."""
        try:
            return _stored(await self._js.get_msg(self._address.name, seq, subjects, next=True))
        except nats.js.errors.NotFoundError:
            return None

    async def last(self, subjects: str) -> Message | None:
        """The newest message of a subject, or of the subjects of a wildcard; None if there is none."""
        try:
            return _stored(await self._js.get_msg(self._address.name, subject=subjects))
        except nats.js.errors.NotFoundError:
            return None

    @property
    def most_data(self) -> int:
        """Bytes of data that a message may have."""
        return min(self._client.max_payload, MAX_PAYLOAD_BYTES) - HEADER_BYTES

    async def publish(
        self, prefix: str, messages: Sequence[tuple[str, bytes]], last: int, *, unless_there: bool
    ) -> None:
        """Store messages without a gap, the first of them behind the place `last`.

        Each message is a pair of a subject (behind `prefix`) and its content. The newest is sent when all others are
        stored. With `unless_there`, a subject other than `LOG_SUBJECT` must have no message yet.

        Raises `Overtaken` if another message came in between or a subject has one already, `NoStream`, and `Rejected`.
        After each of these the newest message is not stored.
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
    async def messages(
        self, start: int, subjects: str | None = None, *, stream: str | None = None, only_now: bool = False
    ) -> AsyncIterator[AsyncIterator[list[Message]]]:
        """All messages (of some subjects) from a place on, and then new ones as they come, in pages. The next page is
        requested when the reader has taken the one before. `stream` is another stream than the history's. With
        `only_now` it ends behind those that are there now. Raises `BrokerError` when messages are lost."""
        name, client = stream or self._address.name, self._client
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
                filter_subject=subjects,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=INACTIVE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            )

        async def is_end(seq: int) -> bool:
            async with self.asking():
                return await self.after(name, subjects or ">", seq) is None

        try:
            pull, end = f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer.name}", is_end if only_now else None
            yield self._pages(pull, inbox, arrived, news, start - 1, of_history=stream is None, is_end=end)
        finally:
            with suppress(*LIBRARY_ERRORS):
                await subscription.unsubscribe()
                await client.publish(f"$JS.API.CONSUMER.DELETE.{name}.{consumer.name}", reply=inbox)

    async def _pages(
        self,
        subject: str,
        inbox: str,
        arrived: deque[Msg],
        news: asyncio.Event,
        last: int,
        *,
        of_history: bool,
        is_end: Callable[[int], Awaitable[bool]] | None,
    ) -> AsyncIterator[list[Message]]:
        wait = {"no_wait": True} if is_end else {"expires": int(PULL_SECONDS * 1e9)}
        pull = msgspec.json.encode({"batch": PULL_MESSAGES, "max_bytes": PULL_BYTES, **wait})
        place = wanted = 0
        deadline = time.monotonic() + self._timeout
        while True:
            async with self.asking(PULL_SECONDS + self._timeout):
                if not wanted:
                    await self._client.publish(subject, pull, reply=inbox)
                    wanted = PULL_MESSAGES
                await news.wait()
            news.clear()
            page, is_behind = list[Message](), False
            while arrived:
                message = arrived.popleft()
                if status := _status(message):
                    if status.startswith("503") and time.monotonic() < deadline:
                        await asyncio.sleep(RETRY_SECONDS)
                    elif not status.startswith(PULL_ENDS):
                        raise BrokerError(f"{self._address.shown}: following the stream ended: {status}")
                    wanted, is_behind = 0, status.startswith(NO_MORE)
                    continue
                metadata = message.metadata
                place, wanted = place + 1, wanted - 1
                if metadata.sequence.consumer != place:
                    raise BrokerError(f"{self._address.shown}: a message was lost on its way")
                at, last = _stored_at(message.reply), metadata.sequence.stream
                data = _ours(last, message.headers, message.data) if of_history else message.data
                page.append(Message(last, at, data, metadata.num_pending, message.subject))
            if page:
                yield page
            if is_behind and is_end is not None:
                if await is_end(last):
                    return
                await asyncio.sleep(RETRY_SECONDS)  # the server that reads for us has not got it yet


def _without_majority(info: StreamInfo) -> str | None:
    """What to say if the servers that keep the stream are too few to store anything; None if they are enough.

    A leader that has lost the others goes on answering for some ten seconds, and knows when it heard from each.
    """
    if info.cluster is None or not info.cluster.replicas:
        return None
    if not info.cluster.leader:
        return "the stream has no leader"
    others = info.cluster.replicas
    heard = sum(not other.offline and (other.active or 0) < SILENT_NANOSECONDS for other in others)
    if 2 * (heard + 1) > len(others) + 1:
        return None
    return f"the stream has no majority: {heard + 1} of its {len(others) + 1} servers are there"


def _stored(message: RawStreamMsg) -> Message:
    whole = _as_it_is(message)
    return whole._replace(data=_ours(whole.seq, message.headers, whole.data))


def _as_it_is(message: RawStreamMsg) -> Message:
    assert message.seq is not None and message.time is not None
    return Message(message.seq, message.time.timestamp(), message.data or b"", 0, message.subject or "")


def _ours(seq: int, headers: Mapping[str, str] | None, data: bytes) -> bytes:
    """The data of a message of the history; none if somebody else has published it.

    The server keeps with ours the condition under which it stored them. So no copy of one counts a second time, and
    all readers agree about each message without another.
    """
    expected = (headers or {}).get(Header.EXPECTED_LAST_SEQUENCE.value, "")
    return data if expected == str(seq - 1) else b""


def _stored_at(reply: str) -> float:
    """When the server stored a message that it has delivered, to the microsecond: as it says it elsewhere, where the
    library's own time is rounded."""
    tokens = reply.split(".")
    return int(tokens[7 if len(tokens) == 9 else 9]) // 1000 / 1e6  # newer servers have a domain in front


def _status(message: Msg) -> str | None:
    """The status of a pull, if the server has sent one instead of a message: only a message has a place, in `reply`."""
    if message.reply or message.data or not message.headers or Header.STATUS not in message.headers:
        return None
    return f"{message.headers[Header.STATUS]} {message.headers.get(Header.DESCRIPTION, '')}".strip()
