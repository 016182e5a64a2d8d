"""Session: a connection to PostgreSQL that is made when it is needed, and made anew after it failed."""

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
Values = Sequence[object] | Mapping[str, object]

MISSING = (errors.UndefinedTable, errors.UndefinedFunction)
"""Somebody has dropped our tables."""

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
"""Whatever the server's or the role's defaults are. Older servers do not know all of these. Plans are made once, and
by index: the table may be empty when they are made, and hold a million rows before the server has counted them."""


class Session:
    """Questions go one at a time, and nothing on it takes longer than the timeout.

    Everything raises `psycopg.Error` or `TimeoutError`, and has dropped the connection then, unless the error says that
    tables are missing.
    """

    def __init__(self, conninfo: str, timeout: float) -> None:
        """Nothing is connected yet. The timeout is in seconds."""
        self._conninfo = conninfo
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None

    async def connect(self) -> None:
        """See that there is a connection."""
        async with asyncio.timeout(self._timeout), self._lock:
            await self._connected()

    async def ask(self, query: bytes, values: Values | None = None) -> list[Row]:
        """Run a statement in a transaction of its own, and return its rows. Without values it may be several
        statements, whose rows are not returned."""
        async with asyncio.timeout(self._timeout), self._lock:
            connection = await self._connected()
            try:
                cursor = connection.cursor(binary=values is not None)
                await cursor.execute(query, values)
                return [] if values is None else await cursor.fetchall()
            except MISSING:
                raise
            except BaseException:
                await self.close()
                raise

    async def hear(self, seconds: float | None = None) -> list[str]:
        """Wait for notifications on what `LISTEN` named; returns what they carry, nothing if none came in that time."""
        async with self._lock:
            if self._connection is None:
                raise psycopg.OperationalError("the connection is closed")
            heard = self._connection.notifies(timeout=seconds, stop_after=1)
            try:
                return [notify.payload async for notify in heard]
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
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
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection


class _Connection(psycopg.AsyncConnection[Row]):
    """Of the library's, two things are otherwise here."""

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Where a query is given up its connection is cut. To ask the server to cancel it may hang as the query does;
        the server itself ends it after its statement_timeout."""
        with socket.socket(fileno=os.dup(self.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def has_ended(self) -> bool:
        """Whether it is closed, also by a server that has gone since it was used last."""
        try:
            self.pgconn.consume_input()  # its last words
            self.pgconn.consume_input()  # and its end
        except psycopg.Error:
            return True
        return self.closed
