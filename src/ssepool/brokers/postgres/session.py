"""Session: a connection to PostgreSQL, opened when it is needed and opened again after it failed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors

Row = tuple[Any, ...]
"""A row of an answer."""

Values = Sequence[object] | Mapping[str, object]
"""The values of a statement's parameters, by order or by name."""

MISSING = (errors.UndefinedTable, errors.UndefinedFunction)
"""The errors if somebody has dropped our tables or functions."""

_SESSION = b"""
SELECT set_config(name, value, false) FROM (VALUES
    ('default_transaction_isolation', 'read committed'),
    ('statement_timeout', %s),
    ('lock_timeout', '0'),
    ('transaction_timeout', '0'),
    ('idle_session_timeout', '0'),
    ('plan_cache_mode', 'force_generic_plan'),
    ('enable_seqscan', 'off'),
    ('jit', 'off')
) AS wanted (name, value) JOIN pg_settings USING (name)
"""
"""Settings of a session, whatever the defaults of the server and the role. Older servers do not know all of them. The
server plans each statement once, for the indexes: a table may be empty then, and have a million rows before the server
counts them."""


class Session:
    """Does one statement at a time, and none takes longer than the timeout.

    Every method raises `psycopg.Error` and `TimeoutError`. It has closed the connection then, unless the error is one
    of `MISSING`.
    """

    def __init__(self, conninfo: str, timeout: float) -> None:
        """Connect nothing yet. `timeout` is in seconds."""
        self._conninfo = conninfo
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None
        self.greeting: bytes | None = None
        """A statement that each new connection begins with."""

    async def connect(self) -> None:
        """Connect, unless the connection is open."""
        async with asyncio.timeout(self._timeout), self._lock:
            await self._connected()

    async def ask(self, query: bytes, values: Values | None = None, *, answers: bool = True) -> list[Row]:
        """Run a statement in a transaction of its own, and return its rows, if it `answers` with rows.

        Without values the query may be several statements, whose rows are not returned.
        """
        async with asyncio.timeout(self._timeout), self._lock:
            connection = await self._connected()
            try:
                cursor = connection.cursor(binary=values is not None)
                await cursor.execute(query, values)
                return await cursor.fetchall() if answers and values is not None else []
            except MISSING:
                raise
            except BaseException:  # cancelled too: an answer may still be on its way, which is nobody's
                await self.close()
                raise

    async def hear(self, seconds: float | None = None) -> list[str]:
        """Wait for a notification of the channel that `LISTEN` named, for at most `seconds` (None: without end).

        Returns the payloads of those that came, or nothing.
        """
        async with self._lock:
            if self._connection is None:
                raise psycopg.OperationalError("the connection is closed")
            heard = self._connection.notifies(timeout=seconds, stop_after=1)
            try:
                return [notify.payload async for notify in heard]
            except BaseException:  # cancelled too: an answer may still be on its way, which is nobody's
                await self.close()
                raise

    async def close(self) -> None:
        """Close the connection. A later call opens another one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.has_ended():
            return self._connection
        await self.close()
        connection = await _Connection.connect(self._conninfo, autocommit=True)
        try:
            await connection.execute(_SESSION, [str(round(1000 * self._timeout))])
            if self.greeting is not None:
                await connection.execute(self.greeting)
        except BaseException:  # cancelled too: nobody else knows of this connection
            await connection.close()
            raise
        self._connection = connection
        return connection


class _Connection(psycopg.AsyncConnection[Row]):
    """The library's connection, which cancels differently and notices its end."""

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Cut the connection of a query that the caller gives up.

        Asking the server to cancel the query might hang as the query does. The server ends it by itself after
        `statement_timeout`.
        """
        with socket.socket(fileno=os.dup(self.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def has_ended(self) -> bool:
        """Whether it is closed, for example by a server that has stopped since its last use."""
        try:
            self.pgconn.consume_input()  # what the server said last
            self.pgconn.consume_input()  # and the end of the connection
        except psycopg.Error:
            return True
        return self.closed
