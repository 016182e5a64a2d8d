"""Server: the Redis server that a URL names, and what its answers mean."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ssepool.brokers.redis.address import Address
from ssepool.errors import BrokerError, ConfigError

T = TypeVar("T")

logger = logging.getLogger("ssepool")

MIN_SERVER_VERSION = (6, 2)
"""The oldest Redis, as major and minor version: the first with `XTRIM MINID` and exclusive ranges. Any Valkey works."""

RIGHTS = "+@read +@write +@scripting +@pubsub +@connection +info +time +wait"
"""The rights that a user needs, as rules of the server's access control list."""

NO_RIGHTS_TEXTS = ("script can't run this command", "ACL failure in script")
"""Parts of the errors with which different versions refuse a script for a missing right."""

UNSURE = "; the events may be published or not"
"""The end of the error message when an append was not answered."""

QUESTIONS = 2
"""Questions at most that wait for an answer at a time, beside an append."""

KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Options of the socket (tcp(7)), in seconds and probes, with which the kernel notices within 20 s that the server's
machine is gone, even on a connection that only waits."""


class Server:
    """Asks the server, each question in bounded time, and makes a `BrokerError` of whatever goes wrong."""

    def __init__(self, address: Address, url: str, timeout: float, greeting: Callable[[], Sequence[Any]]) -> None:
        """`url` names it in messages; an answer may take `timeout` seconds. Each connection of `client` begins with the
        command `greeting`. Raises `ConfigError` for an option in the URL that has a wrong value."""
        self.url = url
        """The URL for messages, without its password."""
        self.timeout = timeout
        """Seconds that an answer may take."""
        self._address = address
        self._greeting = greeting
        self._turns = asyncio.Semaphore(QUESTIONS)
        try:
            self.client = self.connect(redis_connect_func=self._greet)
        except ValueError as error:  # redis-py names the option and does not show the URL
            raise ConfigError(f"HubConfig.broker = {url!r}: {error}") from None

    def connect(self, **options: Any) -> Redis:
        """A client with these options beside ours, which connects when it needs to. It retries nothing: the caller gets
        the error, and asks again.

        `ask` limits the time. With a `socket_timeout` redis-py would send through `asyncio.wait_for`, which in Python
        3.11 sometimes takes a cancellation for a result, so that a tail would not end.
        """
        return Redis.from_url(
            self._address.url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=self.timeout,
            socket_keepalive=True,
            socket_keepalive_options={
                getattr(socket, name): value for name, value in KEEPALIVE_OPTIONS.items() if hasattr(socket, name)
            },
            **options,
        )

    async def _greet(self, connection: Any) -> None:
        """Begin a connection. One that is given up on the way is closed: the next would take its answer for theirs."""
        try:
            await connection.on_connect()
            await connection.send_command(*self._greeting())
            await connection.read_response()
        except BaseException:  # whatever it is, cancellation above all: nobody else knows of this connection
            await connection.disconnect(nowait=True)
            raise

    @asynccontextmanager
    async def subscribed(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """All that is said on a channel from now on, over a connection of its own. Raises `BrokerError`."""
        client = self.connect()
        try:
            listener = client.pubsub()
            await self.ask(listener.subscribe(channel), alone=True)
            await self.ask(listener.get_message(timeout=None), alone=True)  # that it is so
            yield self._messages(listener)
        finally:
            await client.aclose()

    async def _messages(self, listener: PubSub) -> AsyncIterator[bytes]:
        while True:
            heard = await self.ask(listener.get_message(timeout=None), wait=math.inf, alone=True)
            if heard is not None and heard["type"] == "message":
                yield heard["data"]

    async def ask(self, answer: Awaitable[T], *, wait: float = 0, writes: bool = False, alone: bool = False) -> T:
        """The answer to a question, which may take `wait` seconds longer than others.

        `writes` says that the question is an append, so that a lost answer leaves open whether it was stored; `alone`
        that it has a connection of its own. All others take turns, so that however many ask at once, `QUESTIONS` + 1
        connections are enough; the client closes none that it has made. Raises `BrokerError`.
        """
        seconds = self.timeout + wait
        try:
            async with asyncio.timeout(None if wait == math.inf else seconds):
                async with nullcontext() if writes or alone else self._turns:
                    return await answer
        except TimeoutError:
            raise self.late(seconds, writes=writes) from None
        except exceptions.ReadOnlyError as error:
            # The primary has become a replica: the next connection may find the one that took over.
            await self.client.connection_pool.disconnect()
            raise self._failed(error) from error
        except (exceptions.RedisError, OSError) as error:
            raise self._failed(error, writes=writes) from error
        finally:
            if isinstance(answer, Coroutine):
                answer.close()  # its turn may not have come

    def refusal(self, error: BaseException | None) -> ConfigError | None:
        """Why the server will always refuse us with these settings; None if it may accept us later."""
        reason = _reason(error, self._address.name) if isinstance(error, Exception) else None
        return None if reason is None else ConfigError(f"HubConfig.broker = {self.url!r}: {reason}")

    async def check(self, state: str, version: int) -> None:
        """Check that the server is fit for a history, and that the one whose state has this key has a layout of this
        version at most. Raises `ConfigError`, and warns if it may evict the history."""
        client = self.connect()  # without a greeting, which may write
        try:
            info: dict[str, Any] = await self.ask(client.info(), alone=True)
            self._check_server(info)
            layout: Any = await self.ask(client.hget(state, "version"), alone=True)
        finally:
            await client.aclose()
        if int(layout or 1) > version:
            raise ConfigError(
                f"{self.url} has the layout {int(layout)} of a later ssepool, and this one knows {version}"
            )

    def _check_server(self, info: dict[str, Any]) -> None:
        version = str(info.get("redis_version", "0"))
        if (
            tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_SERVER_VERSION
            and "valkey_version" not in info
        ):
            wanted = ".".join(map(str, MIN_SERVER_VERSION))
            raise ConfigError(f"{self.url} is Redis {version}; it takes {wanted} or newer, or Valkey")
        if info.get("role") == "slave":
            raise ConfigError(f"{self.url} is a replica, which takes no events; name the primary")
        policy = str(info.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and info.get("maxmemory"):
            logger.warning(
                "%s has the maxmemory-policy %s: when memory runs short it may throw the history away; "
                "noeviction is right for events",
                self.url,
                policy,
            )

    def late(self, seconds: float, *, writes: bool = False) -> BrokerError:
        """The error for an answer that did not come in so many seconds."""
        return BrokerError(f"{self.url} did not answer in {seconds:g} s{UNSURE if writes else ''}")

    def _failed(self, error: Exception, *, writes: bool = False) -> BrokerError:
        away = isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError))
        refused = isinstance(error, (exceptions.BusyLoadingError, exceptions.AuthenticationError))
        never_sent = refused or isinstance(error.__context__, ConnectionRefusedError)
        return BrokerError(f"{self.url}: {error}{UNSURE if writes and away and not never_sent else ''}")


def _reason(error: Exception, name: str) -> str | None:
    text = str(error)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return f"the server refuses the credentials: {text}"
    if isinstance(error, exceptions.NoPermissionError) or any(words in text for words in NO_RIGHTS_TEXTS):
        return f"{text}; its user needs the rights {RIGHTS} ~{{{name}}}:* &{{{name}}}:*"
    if isinstance(error, exceptions.MovedError) or text.startswith("MOVED "):  # plain text in redis-py before 6
        return f"this history is on the node {text.split()[-1]} of the cluster; name that node"
    if "DB index" in text:
        return f"there is no such database: {text}"
    return None
