"""Connection: a connection to NATS that never reconnects, and raises ssepool's errors instead of the library's."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ssepool.brokers.base import MAX_MESSAGE_BYTES
from ssepool.brokers.nats.address import Address
from ssepool.config import KiB, MiB
from ssepool.errors import BrokerError

logger = logging.getLogger("ssepool")

MIN_SERVER_VERSION = (2, 9)
"""The oldest NATS server, as major and minor version: the first with pulls bounded in bytes and consumers in memory."""

HEADER_BYTES = 2 * KiB
"""Bytes of a message that we leave for its headers."""

MAX_UNREAD_BYTES = 64 * MiB
"""Bytes of the side channel that may wait to be read. Messages beyond them are dropped."""

LIBRARY_ERRORS = (nats.errors.Error, OSError, TimeoutError)
"""The errors that the library raises."""


class Refused(BrokerError):
    """The server answers, but somebody has to change its configuration or ours before it does what we ask."""


class Connection:
    """At its first failure it is `lost` for good, and every call that waits on it fails.

    The library's own reconnecting is off. The library would buffer what is published meanwhile, and send it long after
    the hub has reported that the publish failed.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        """Connect nothing yet. `timeout` is the longest time that a question may take, in seconds."""
        self.lost: BrokerError | None = None
        """The error that ended the connection; None while it can be used."""
        self._address = address
        self._timeout = timeout
        self._client = Client()
        self._scopes: set[asyncio.Timeout] = set()
        self._trouble: Exception | None = None

    async def open(self) -> None:
        """Connect. Raises `Refused`, and `BrokerError` if no server answers in time."""
        address = self._address
        login: dict[str, Any] = {}
        if address.user is not None:
            login = {"token": self._user} if address.password is None else {"user": self._user}
        times: dict[str, Any] = {  # floats work, whatever the library's annotations say
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

    @property
    def server(self) -> str:
        """Which process answers: another one after each start of a server."""
        return str(self._client._server_info.get("server_id", ""))

    async def close(self) -> None:
        """End the connection. Every call that waits on it raises `BrokerError`."""
        self._lose(BrokerError(f"{self._address.shown}: the connection is closed"))
        with suppress(*LIBRARY_ERRORS):
            await self._client.close()

    def _user(self) -> str | None:
        """The user's name or token. The library asks for it just before it sends the password."""
        if self._address.is_tls and not self._client._server_info.get("tls_required"):
            raise self.refused("the server does not speak TLS; no password was sent")
        return self._address.user

    def _check_server(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < MIN_SERVER_VERSION:
            raise self.refused(f"this is NATS {version.major}.{version.minor}; ssepool needs 2.9 or newer")
        if self._client.max_payload < MAX_MESSAGE_BYTES + HEADER_BYTES:
            raise self.refused(
                f"the server's max_payload is {self._client.max_payload} bytes; set it to {MiB} (1 MiB) or more"
            )
        self._user()

    @asynccontextmanager
    async def asking(self, timeout: float | None = None) -> AsyncIterator[None]:
        """The block in which every use of the connection stands.

        It raises `BrokerError` after `timeout` seconds (or the connection's own), when the connection is lost, and in
        place of the library's errors.
        """
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

    # Callbacks of the library.

    async def _note(self, error: Exception) -> None:
        self._trouble = error
        if not self._client.is_connected:
            return
        logger.warning("%s: %s", self._address.shown, error)
        if "permissions violation" in str(error).lower():
            self._lose(self.refused(str(error).removeprefix("nats: ")))
            await self._client.close()

    async def _closed(self) -> None:
        self._lose(self._translated(self._client.last_error or nats.errors.ConnectionClosedError()))

    def _lose(self, error: BrokerError) -> None:
        if self.lost is None:
            self.lost = error
            now = asyncio.get_running_loop().time()
            for scope in self._scopes:
                scope.reschedule(now)

    def refused(self, why: str) -> Refused:
        """The error that says why the server, or what is there, will not do."""
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
            return self.refused("the server does not accept this user and password, or token")
        if isinstance(error, ssl.SSLError):
            return self.refused(f"TLS: {text}")
        return BrokerError(f"{shown}: {text}")

    # Messages outside the stream, which nobody keeps.

    async def send(self, subject: str, data: bytes) -> None:
        """Send a message. Returns when the server has it."""
        async with self.asking():
            await self._client.publish(subject, data)
            await self._client.flush(timeout=2 * self._timeout)  # type: ignore[arg-type]

    async def hint(self, subject: str, data: bytes) -> None:
        """Send a message without waiting for the server."""
        async with self.asking():
            await self._client.publish(subject, data)

    async def hear(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with each message of a subject, for as long as the connection lasts."""

        async def take(message: Msg) -> None:
            heard(message.data)

        async with self.asking():
            await self._client.subscribe(subject, cb=take)

    async def answer(self, subject: str, answer: Callable[[], bytes]) -> None:
        """Answer each question that is asked under a subject, for as long as the connection lasts."""

        async def take(message: Msg) -> None:
            if message.reply:
                await self._client.publish(message.reply, answer())

        async with self.asking():
            await self._client.subscribe(subject, cb=take)

    async def ask(self, subject: str, seconds: float) -> bytes | None:
        """The first answer to a question; None if there is nobody to answer, or if none comes in time."""
        async with self.asking():
            try:
                return (await self._client.request(subject, timeout=seconds)).data
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                if self.lost is not None:
                    raise
                return None

    async def listen(self, subject: str) -> AsyncGenerator[bytes, None]:
        """All messages of a subject from now on. Raises `BrokerError` when the connection is lost."""
        async with self.asking():
            subscription = await self._client.subscribe(subject, pending_bytes_limit=MAX_UNREAD_BYTES)
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
    """A block that a cancellation ends, at the latest at the block's end.

    The library waits for answers with `asyncio.wait_for`. In Python 3.11 that returns an answer which arrives together
    with a cancellation, and forgets the cancellation, so that a task which asks again and again would never end.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    yield
    if task.cancelling() > before:
        raise asyncio.CancelledError
