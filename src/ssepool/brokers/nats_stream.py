"""JetStream: one connection to NATS, and one stream there."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, DeliverPolicy, Header, RawStreamMsg, StorageType

from ssepool.brokers.base import MOST_MESSAGE
from ssepool.brokers.nats_address import Address
from ssepool.brokers.nats_batch import LOG
from ssepool.config import KiB, MiB
from ssepool.errors import BrokerError

logger = logging.getLogger("ssepool")

OLDEST_SERVER = (2, 9)
"""The first that lets a pull be bounded in bytes and keeps consumers in memory."""

MOST_PAYLOAD = MiB
"""Bytes of a message at most, also where the server's `max_payload` is more: pages are counted in messages."""

HEADERS = 2 * KiB
"""Bytes of a message that are left for its headers."""

PULL = {"batch": 1000, "max_bytes": MOST_PAYLOAD + 64 * KiB}
"""Messages that are asked for at a time."""

EXPIRES = 5.0
"""Seconds that the server keeps such a request; a consumer that is silent for longer is lost."""

ANSWERED = ("404", "408", "409 Message Size", "409 Batch Completed")
"""What the server says at the end of such a request; all else ends the consumer."""

SPREADING = 0.02
"""Seconds until a request is made again that no server of a cluster took: not all know a new consumer at once."""

INACTIVE = 300.0
"""Seconds after which the server forgets a consumer that asks for nothing more."""

MOST_UNHEARD = 64 * MiB
"""Bytes of the side channel that wait to be read; what comes beyond them is dropped."""

WRONG_SEQUENCE = (10071, 10164)
"""Codes of the error that another message was last than the one expected."""

NO_JETSTREAM = (None, 10039, 10076)
"""Codes of the error that there is none; None if nobody answers for it."""

NAME_IN_USE = 10058
"""Code of the error that somebody else has made the stream meanwhile."""


LIBRARY_ERRORS = (nats.errors.Error, OSError, TimeoutError)
"""What the library raises."""


class Refused(BrokerError):
    """The server is there, but somebody has to change something before it does what is asked."""


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


class JetStream:
    """Made for one connection: at its first failure it is `lost` for good, and whoever waits on it is told.

    The library's own reconnecting is off. It would keep what is published meanwhile in a buffer, and send it at a time
    when the hub has long said that it failed.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        """With a timeout in seconds for each question."""
        self.lost: BrokerError | None = None
        self._address = address
        self._timeout = timeout
        self._client = Client()
        self._js = self._client.jetstream(timeout=2 * timeout)  # `asking` is what ends a question
        self._scopes: set[asyncio.Timeout] = set()
        self._trouble: Exception | None = None

    async def open(self) -> None:
        """Connect. Raises `Refused` and `BrokerError`."""
        address = self._address
        login: dict[str, Any] = {}
        if address.user is not None:
            login = {"token": self._user} if address.password is None else {"user": self._user}
        times: dict[str, Any] = {  # which may be floats, whatever the library says
            "connect_timeout": self._timeout,
            "ping_interval": self._timeout / 2,
            "reconnect_time_wait": 0.05,
        }
        try:
            with _cancellable():
                async with asyncio.timeout(self._timeout):
                    await self._client.connect(
                        address.servers,
                        name="ssepool",
                        error_cb=self._note,
                        closed_cb=self._closed,
                        password=address.password,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        max_outstanding_pings=2,
                        **times,
                        **login,
                    )
            self._check_server()
        except BaseException as error:
            with suppress(Exception):
                await self._client.close()
            if isinstance(error, LIBRARY_ERRORS):
                raise self._translated(error) from None
            raise

    async def close(self) -> None:
        self._lose(BrokerError(f"{self._address.shown}: the connection is closed"))
        with suppress(*LIBRARY_ERRORS):
            await self._client.close()

    def _user(self) -> str | None:
        """Called when the password is about to be sent."""
        if self._address.is_tls and not self._client._server_info.get("tls_required"):
            raise self._refused("the server does not speak TLS; no password was sent")
        return self._address.user

    def _check_server(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            raise self._refused(f"this is NATS {version.major}.{version.minor}; ssepool needs 2.9 or newer")
        if self._client.max_payload < MOST_MESSAGE + HEADERS:
            raise self._refused(
                f"the server's max_payload is {self._client.max_payload} bytes; set it to {MiB} (1 MiB) or more"
            )
        self._user()

    @asynccontextmanager
    async def asking(self, timeout: float | None = None) -> AsyncIterator[None]:
        """All that goes over the connection goes inside of this: it ends in time, and when the connection does, and
        the library's errors become ours."""
        if self.lost is not None:
            raise self.lost
        scope = asyncio.timeout(timeout or self._timeout)
        try:
            with _cancellable():
                async with scope:
                    self._scopes.add(scope)
                    yield
        except LIBRARY_ERRORS as error:
            raise self._translated(error) from None
        finally:
            self._scopes.discard(scope)

    # What the library tells.

    async def _note(self, error: Exception) -> None:
        self._trouble = error
        if not self._client.is_connected:
            return
        logger.warning("%s: %s", self._address.shown, error)
        if "permissions violation" in str(error).lower():
            self._lose(self._refused(str(error).removeprefix("nats: ")))
            await self._client.close()

    async def _closed(self) -> None:
        self._lose(self._translated(self._client.last_error or nats.errors.ConnectionClosedError()))

    def _lose(self, error: BrokerError) -> None:
        if self.lost is None:
            self.lost = error
            now = asyncio.get_running_loop().time()
            for scope in self._scopes:
                scope.reschedule(now)

    def _refused(self, why: str) -> Refused:
        return Refused(f"{self._address.shown}: {why}")

    def _translated(self, error: Exception) -> BrokerError:
        if self.lost is not None:
            return self.lost
        shown, text = self._address.shown, str(error).removeprefix("nats: ")
        if isinstance(error, nats.errors.NoServersError) and self._trouble is not None:
            text = str(self._trouble)
        if isinstance(error, nats.js.errors.APIError) and error.description:
            text = error.description
        elif isinstance(error, TimeoutError):
            text = f"no answer in {self._timeout:g} s"
        if "authorization violation" in text.lower() or "authentication" in text.lower():
            return self._refused("the server does not accept this user and password, or token")
        if isinstance(error, ssl.SSLError):
            return self._refused(f"TLS: {text}")
        return BrokerError(f"{shown}: {text}")

    # The stream.

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
            if error.err_code != NAME_IN_USE:
                raise self._refused(f"the stream {name!r} cannot be made: {error.description}") from None

    def _unavailable(self, error: nats.js.errors.APIError) -> BrokerError:
        if error.err_code not in NO_JETSTREAM:
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
        return min(self._client.max_payload, MOST_PAYLOAD) - HEADERS

    async def publish(
        self, prefix: str, messages: Sequence[tuple[str, bytes]], last: int, *, unless_there: bool
    ) -> None:
        """Store messages, by subject, right behind each other and behind the place `last`; the newest of them only when
        all others are there.

        Raises `Overtaken` if another message came in between or, with `unless_there`, if one of the subjects other than
        `LOG` has a message; `NoStream`; and `Rejected`. The newest was not stored then.
        """

        def store(number: int) -> Awaitable[object]:
            subject, data = messages[number]
            headers: dict[str, Any] = {Header.EXPECTED_LAST_SEQUENCE.value: str(last + number)}
            if unless_there and subject != LOG:
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
            if error.err_code in WRONG_SEQUENCE:
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
                inactive_threshold=INACTIVE,
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
        pull = msgspec.json.encode({**PULL, "expires": int(EXPIRES * 1e9)})
        place = wanted = 0
        deadline = time.monotonic() + self._timeout
        while True:
            async with self.asking(EXPIRES + self._timeout):
                if not wanted:
                    await self._client.publish(subject, pull, reply=inbox)
                    wanted = PULL["batch"]
                await news.wait()
            news.clear()
            page: list[Message] = []
            while arrived:
                message = arrived.popleft()
                if status := _status(message):
                    if status.startswith("503") and time.monotonic() < deadline:
                        await asyncio.sleep(SPREADING)
                    elif not status.startswith(ANSWERED):
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

    # Messages that are kept nowhere.

    async def send(self, subject: str, data: bytes) -> None:
        """Returns when the server has it."""
        async with self.asking():
            await self._client.publish(subject, data)
            await self._client.flush(timeout=2 * self._timeout)  # type: ignore[arg-type]

    async def hint(self, subject: str, data: bytes) -> None:
        """As `send`, without waiting for the server."""
        async with self.asking():
            await self._client.publish(subject, data)

    async def hear(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Call somebody with what is sent, for as long as the connection lasts."""

        async def take(message: Msg) -> None:
            heard(message.data)

        async with self.asking():
            await self._client.subscribe(subject, cb=take)

    async def listen(self, subject: str) -> AsyncGenerator[bytes, None]:
        async with self.asking():
            subscription = await self._client.subscribe(subject, pending_bytes_limit=MOST_UNHEARD)
            await self._client.flush(timeout=2 * self._timeout)  # type: ignore[arg-type]
        try:
            async for message in subscription.messages:
                yield message.data
        finally:
            with suppress(*LIBRARY_ERRORS):
                await subscription.unsubscribe()
        raise self.lost or BrokerError(f"{self._address.shown}: listening ended")


@contextmanager
def _cancellable() -> Iterator[None]:
    """A cancellation ends what is inside, at the latest at its end.

    The library waits for answers with `asyncio.wait_for`, which in Python 3.11 returns an answer that comes together
    with a cancellation, and forgets the cancellation: a task that asks for ever could never be ended.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    yield
    if task.cancelling() > before:
        raise asyncio.CancelledError


def _message(message: RawStreamMsg) -> Message:
    assert message.seq is not None and message.time is not None
    return Message(message.seq, message.time.timestamp(), message.data or b"")


def _status(message: Msg) -> str | None:
    """What the server says of a request instead of a message."""
    if message.data or not message.headers or Header.STATUS not in message.headers:
        return None
    return f"{message.headers[Header.STATUS]} {message.headers.get(Header.DESCRIPTION, '')}".strip()
