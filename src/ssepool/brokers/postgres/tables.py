"""The statements that write and read a history in PostgreSQL. What they are about is in `layout`."""

from __future__ import annotations

import re

from psycopg import sql

from ssepool.brokers.base import PAGE_CUTS, PAGE_FACTS, PAGE_PLACES
from ssepool.brokers.postgres.layout import MAKE_FUNCTIONS, MAKE_TABLES, PARTS, SIZE, TABLES_VERSION
from ssepool.brokers.record import AROUND_ID_BYTES, DIGEST_CHARACTERS, MAX_MADE_ID_BYTES, STORED_BYTES
from ssepool.config import MiB
from ssepool.core.timelines import MAX_TIMELINES

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,50}")
"""A name that a history may have. Identifiers have at most 63 bytes, and ours are the name and a suffix."""

PAGE_BYTES = MiB
"""Bytes at which a page ends; its last entry may exceed them."""

_PROBE = """
SELECT version FROM {log}
WHERE NOT EXISTS (SELECT position, id, topics, private, frame, at FROM {events} LIMIT 0)
    AND NOT EXISTS (SELECT topic, public, private FROM {cuts} LIMIT 0)
    AND NOT EXISTS (SELECT number, epoch, ended FROM {timelines} LIMIT 0)
    AND NOT EXISTS (SELECT id, message, at FROM {messages} LIMIT 0)
    AND NOT EXISTS (SELECT name, number, until, data FROM {facts} LIMIT 0)
"""

_APPEND = "SELECT * FROM {append}(%b, %b, %b, %b, %b, %s, %s, %s, %s, %s)"

_DROP = "SELECT {drop}(%s, %s, %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s)"

_SOME = """
SELECT log.epoch, position, id, topics, private, frame, key, removed, extract(epoch FROM at)::float8
FROM {log} AS log LEFT JOIN LATERAL (
    SELECT *, sum({size}) OVER (ORDER BY position) - ({size}) AS before FROM (
        SELECT * FROM {events} WHERE position {which} AND position <= log.newest
        ORDER BY position LIMIT %(most)s
    ) AS these
) AS next ON before < {page_bytes}
ORDER BY position
"""

_BOUNDS = """
SELECT epoch, coalesce((
    SELECT min(position) - 1 FROM {events} WHERE position > log.oldest AND position <= log.newest
), newest), newest, bytes, floor,
    ARRAY(SELECT epoch FROM {timelines} ORDER BY number), ARRAY(SELECT ended FROM {timelines} ORDER BY number), version
FROM {log} AS log
"""

_ADOPT = """
WITH adopted AS (
    UPDATE {events} SET at = clock_timestamp()
    WHERE position > (SELECT newest FROM {log}) AND position <= (SELECT newest FROM {log}) + %s::bigint
    RETURNING position, {size} AS size
)
UPDATE {log} SET newest = greatest(newest, coalesce((SELECT max(position) FROM adopted), 0)),
    bytes = bytes + coalesce((SELECT sum(size) FROM adopted), 0)
"""

_PLACES = """
SELECT position, topics, private FROM {events} WHERE id = %s AND position > %s ORDER BY position LIMIT {places}
"""

_TRIM = """
WITH forgotten AS (
    DELETE FROM {messages} WHERE at < now() - interval '1 minute' RETURNING id
)
SELECT count(*) FROM forgotten
"""

_SEND = """
WITH sent AS (INSERT INTO {messages} (message) VALUES (%b) RETURNING id)
SELECT pg_notify({mail}, id::text) FROM sent
"""

_KEPT = """
SELECT name, number, data FROM {facts} WHERE number > %s AND until > clock_timestamp()
ORDER BY number LIMIT {page_facts}
"""

_OPEN = "hashtext('ssepool open'), hashtext(to_regclass({log_name})::oid::text)"


class Tables:
    """The statements for the history of one name, as bytes for `Session.ask`."""

    def __init__(self, name: str) -> None:
        """`name` is a name that `NAME_PATTERN` allows."""
        log_name = sql.Literal(f'"{name}_log"')
        self._parts: dict[str, sql.Composable] = {
            **{part: sql.Identifier(f"{name}_{part}") for part in PARTS},
            "size": sql.SQL(SIZE).format(
                made_id=sql.Literal(MAX_MADE_ID_BYTES), around_id=sql.Literal(AROUND_ID_BYTES + STORED_BYTES)
            ),
            "open": sql.SQL(_OPEN).format(log_name=log_name),
            "relation": sql.SQL("{}::regclass").format(log_name),
        }
        self.name = name
        """The name of the history."""
        self.probe = self._query(_PROBE)
        """Select the version of the tables. It fails if they are not ssepool's, and has no row if they are empty."""
        self.enter = self._query("SELECT {enter}(%s)")
        """Say that a hub has the history open; if none has yet, and there is something in it, a new timeline begins."""
        self.hold = self._query("SELECT pg_advisory_lock_shared({open})")
        """Say it again, on another connection."""
        self.append = self._query(_APPEND)
        """Append the events in seven arrays, in one of the modes `ignore`, `refuse` (nothing is stored if a claim is
        known) and `look` (nothing is). Behind them what has been seen of each epoch, and the epoch that begins if there
        is less. Returns the epoch, the position before them, and the known events of their claims."""
        self.drop = self._query(_DROP)
        """Delete the entries at some positions of an epoch of which so much has been seen, and raise cuts and floor."""
        self.renew = self._query("SELECT {renew}(%s, %s)")
        """Begin a new timeline, if the history still has the first name."""
        self.page = self._some("> %(after)s::bigint")
        """Select at most `most` entries behind the position `after`, and the epoch, also where there are none."""
        self.fetch = self._some("= ANY (%(positions)s::bigint[])")
        """Select at most `most` of the entries at `positions`, as `page` does."""
        self.cuts = self._query(
            "SELECT topic, public, private FROM {cuts} WHERE topic > %s ORDER BY topic LIMIT {page_cuts}",
            page_cuts=PAGE_CUTS,
        )
        """Select the next topics behind a name, with their cuts."""
        self.adopt = self._query(_ADOPT)
        """Go behind the rows that somebody else has put where the next so many entries belong."""
        self._add_questions()
        self._add_others()

    def _add_questions(self) -> None:
        self.places = self._query(_PLACES, places=PAGE_PLACES)
        """Select the position, topics and privacy of the next events of a chosen id behind a position."""
        self.there = self._query("SELECT position FROM {events} WHERE position = %s")
        """Select a position, if its entry is there."""
        self.bounds = self._query(_BOUNDS)
        """Select the epoch, the positions of the ends, the bytes and the floor of the history, and the names and ends
        of its earlier timelines."""
        self.listen_for_news = self._query("LISTEN {news}")
        """Listen for the notifications of appends."""

    def _add_others(self) -> None:
        self.trim = self._query(_TRIM)
        """Delete old messages of the side channel."""
        self.send = self._query(_SEND, mail=f"{self.name}_mail")
        """Store a message of the side channel, and notify its listeners of its id."""
        self.message = self._query("SELECT message FROM {messages} WHERE id = %s::uuid")
        """Select a message of the side channel by its id."""
        self.listen_for_mail = self._query("LISTEN {mail}")
        """Listen for the notifications of messages."""
        self.keep = self._query("SELECT {keep}(%s, %b, %s, %s)")
        """Keep a fact for some seconds, if there are not so many others already. Returns whether it is kept."""
        self.kept = self._query(_KEPT, page_facts=PAGE_FACTS)
        """Select name, number and content of the next facts behind a number."""

    def make(self, epoch: str) -> bytes:
        """Several statements that create what is missing, in one transaction.

        A new history is given this epoch. Hubs that do it at once wait for each other.
        """
        return self._query(
            MAKE_TABLES + MAKE_FUNCTIONS,
            name=self.name,
            version=TABLES_VERSION,
            epoch=epoch,
            news=f"{self.name}_news",
            digest=DIGEST_CHARACTERS,
            timelines_kept=MAX_TIMELINES,
        )

    def _some(self, which: str) -> bytes:
        return self._query(_SOME.replace("{which}", which), page_bytes=PAGE_BYTES)

    def _query(self, text: str, **values: object) -> bytes:
        parts = {**self._parts, **{name: sql.Literal(value) for name, value in values.items()}}
        return sql.SQL(text).format(**parts).as_bytes()
