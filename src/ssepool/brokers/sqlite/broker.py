"""The SQLite broker: it keeps events in a file for all processes of one machine, and needs no server.

The URL has SQLAlchemy's form: `sqlite:///relative/events.db` or `sqlite:////absolute/events.db` (four slashes). In the
path `%3F` stands for `?` and `%23` for `#`. A file holds one history. The broker creates a missing file, which only its
own user can read, but not a missing directory.

Beside the file are SQLite's own `<file>-wal` and `<file>-shm`, the directory `<file>-wake`, in which processes wake
each other, and `<file>-hubs`, by which they know whether others have the history open (`openers`). The file must be on
a local disk, because locks do not work over a network. The file does not shrink when events are dropped; new events use
their space again.

When `append` returns, the events are on disk (`synchronous=FULL`): they survive `kill -9` and the loss of power, but
not that of the disk. There are no replicas, and nothing to choose.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from ssepool.brokers.base import Bounds, Broker, Fact, Stored, Wants, anything, first_wanted
from ssepool.brokers.record import Record
from ssepool.brokers.sqlite.file import others_may
from ssepool.brokers.sqlite.files import delete, left_behind
from ssepool.brokers.sqlite.history import PAGE_ENTRIES, History
from ssepool.brokers.sqlite.notifier import Notifier
from ssepool.brokers.sqlite.openers import Openers
from ssepool.brokers.sqlite.seen import Seen
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError
from ssepool.urls import without_password

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("ssepool")

POLL_SECONDS = 0.5
"""Seconds after which a tail looks for new entries without having been notified, since a notification may be lost."""

SPOILT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)
"""The codes of errors after which it is of no use to read a database again."""

LOCK_SHARE = 0.8
"""The share of `broker_timeout` that a call waits while another process holds the lock on the file."""


class SqliteBroker(Broker):
    """Keeps events in a file. One thread writes and another reads, so that readers do not wait for the disk."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        path = self._path = path_of(config.broker)
        self._notifier = Notifier(path.with_name(path.name + "-wake"))
        self._openers = Openers(path)
        seen = Seen(self._openers)
        self._writer = _Worker(path, config, self.url, self._openers, seen, then=self._notifier.notify)
        self._reader = _Worker(path, config, self.url, self._openers, seen, then=lambda: None)
        self._news = asyncio.Event()
        self._epoch = ""
        """The epoch of the history that `bounds` named last: readers follow this one."""

    async def open(self) -> None:
        await self._writer.open()
        if self.follows:
            try:
                if await self._enter():
                    await self._writer.run(History.begin)
            finally:
                self._openers.settle()
        else:
            with contextlib.suppress(OSError):
                self._openers.look()
        await self._reader.open()
        await self.bounds()
        if others_may(self._path):
            logger.warning("other users of this machine have rights to %s; chmod 600 takes them away", self._path)
        self._notifier.open(self._heard)

    async def close(self) -> None:
        try:
            await self._reader.close()
            await self._writer.close()
        finally:
            self._notifier.close()
            self._openers.leave()

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        return await self._writer.run(History.append, records) if records else []

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        epoch = self._epoch
        follows = False
        while True:
            news = self._news
            entries = self._there(await self._reader.run(History.read, epoch, after, PAGE_ENTRIES))
            after = entries[-1].position if entries else after
            if entries or not follows:
                follows = True
                yield entries
            else:
                await _wait(news)

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        return self._there(await self._reader.run(History.read, self._epoch, after, max_entries))

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        return self._there(await self._reader.run(History.fetch, self._epoch, positions))

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        if not await self._writer.run(History.drop, self._epoch, positions, cuts, floor):
            raise self._renewed()

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        return await self._reader.run(History.cuts, after)

    async def renew(self, epoch: str) -> Bounds:
        bounds = await self._writer.run(History.renew, epoch)
        self._epoch = bounds.epoch
        return bounds

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        chosen = await first_wanted(lambda after: self._reader.run(History.places, id, after), wants)
        return await self._reader.run(History.made, id) if chosen is None else chosen

    async def bounds(self) -> Bounds:
        bounds = await self._reader.run(History.bounds)
        self._epoch = bounds.epoch
        return bounds

    async def trim(self) -> None:
        await self._writer.run(History.trim)

    async def send(self, message: bytes) -> None:
        await self._writer.run(History.send, message)

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self._check_fact(name, data)
        if not await self._writer.run(History.keep, name, data, seconds, self.max_facts):
            raise self._full_of_facts()

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        return await self._reader.run(History.kept, after)

    async def messages(self) -> AsyncIterator[bytes]:
        number = await self._reader.run(History.last_message)
        while True:
            news = self._news
            messages = await self._reader.run(History.messages, number)
            for number, message in messages:  # noqa: B007 where the next ones begin
                yield message
            if not messages:
                await _wait(news)

    def _there(self, entries: list[Entry] | None) -> list[Entry]:
        if entries is None:
            raise self._renewed()
        return entries

    def _renewed(self) -> BrokerError:
        return BrokerError(f"{self.url}: another timeline of the history has begun, or another history")

    async def _enter(self) -> bool:
        """Whether nobody else has the file open; nobody comes in before the openers settle."""
        deadline = time.monotonic() + LOCK_SHARE * self.config.broker_timeout
        while True:
            try:
                is_alone = self._openers.enter()
            except OSError as error:
                logger.warning("cannot tell whether others have %s open: %s", self._path, error.strerror or error)
                return True
            if is_alone is not None:
                return is_alone
            if time.monotonic() > deadline:
                raise BrokerError(f"{self.url}: another process is about to open the database, and does not get on")
            await asyncio.sleep(0.005)

    def _heard(self) -> None:
        self._news.set()
        self._news = asyncio.Event()  # a tail that is reading now has the old one, and so misses no notification


class _Worker:
    """A thread that does one call at a time, on its own connection to the file. It opens the connection when it needs
    one, and a new one after a failure."""

    def __init__(
        self, path: Path, config: HubConfig, url: str, openers: Openers, seen: Seen, then: Callable[[], None]
    ) -> None:
        """The thread calls `then` after each call that succeeded. `openers` and `seen` are of all workers of a file."""
        self._path = path
        self._openers = openers
        self._config = config
        self._url = url
        self._seen = seen
        self._then = then
        self._thread = ThreadPoolExecutor(1, "ssepool-sqlite")
        self._history: History | None = None

    async def open(self) -> None:
        """Open the file. Raises `ConfigError` and `BrokerError`."""
        await self._submit(self._do, lambda history: None)

    async def run(self, work: Callable[Concatenate[History, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in the thread. Once begun it runs to its end, even if the caller is cancelled.

        Raises `BrokerError`, and the errors of `work`.
        """
        try:
            return await self._submit(self._do, lambda history: work(history, *args, **kwargs))
        except ConfigError as error:  # the file has been replaced since it was opened
            raise BrokerError(str(error)) from None

    async def close(self) -> None:
        """Close the file, and end the thread."""
        with contextlib.suppress(BrokerError):  # it is closed already
            await self._submit(self._drop)
        self._thread.shutdown(wait=False)

    async def _submit(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        except RuntimeError:
            raise BrokerError(f"{self._url} is closed") from None
        return await future

    def _do(self, work: Callable[[History], T]) -> T:
        deadline = time.monotonic() + LOCK_SHARE * self._config.broker_timeout
        while True:
            try:
                history = self._opened()
                done = work(history)
                lost = history.is_lost
            except OSError as error:  # we must not look at the file any more, say
                raise BrokerError(f"{self._url}: {error.strerror or error}") from None
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise self._failed(code, error) from None
            else:
                if lost:
                    raise BrokerError(
                        f"{self._url}: the file has been replaced; what was published just now may be stored or not"
                    )
                self._openers.mark(*history.mark)
                self._then()
                return done

    def _opened(self) -> History:
        if self._history is not None and self._history.is_lost:
            try:
                self._history.leave()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in SPOILT_CODES:
                    raise
                logger.error("what was in the log of %s could not be saved: %s", self._path, error)
            logger.error("somebody has replaced %s or its log while it was in use; opening it anew", self._path)
            self._drop()
        if self._history is None:
            if left := left_behind(self._path, self._openers.files()):
                # Who has it open has all of it, and saves that. One that was killed does not.
                logger.error("%s has been replaced, and the log of the one before is deleted", self._path)
                delete(self._path, left)
            self._history = History(self._path, self._config, self._seen)
        return self._history

    def _drop(self) -> None:
        history, self._history = self._history, None
        if history is not None:
            history.close()

    def _failed(self, code: int, error: sqlite3.Error) -> BrokerError:
        if code == sqlite3.SQLITE_BUSY:
            return BrokerError(f"{self._url}: another process keeps the database locked; nothing was published")
        if code == sqlite3.SQLITE_FULL:
            return BrokerError(f"{self._url}: the disk is full; nothing was published")
        self._drop()
        stored = "; what was published just now may be stored or not" if code == sqlite3.SQLITE_IOERR else ""
        return BrokerError(f"{self._url}: {error}{stored}")


async def _wait(news: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_SECONDS):
            await news.wait()


def path_of(url: str) -> Path:
    """The file that a URL names. Raises `ConfigError` for a URL that names none, or that has more than a path."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if path in ("", ":memory:"):
        raise ConfigError(
            f"HubConfig.broker = {without_password(url)!r} names no file; for events in memory write memory://"
        )
    if parts.netloc:
        raise ConfigError(
            f"HubConfig.broker = {without_password(url)!r} names a server; write sqlite:///relative.db or sqlite:////absolute.db"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"HubConfig.broker = {without_password(url)!r} has parameters; it takes none (in a path: %3F, %23)"
        )
    return Path(path)
