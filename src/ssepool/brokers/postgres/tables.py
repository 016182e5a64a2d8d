"""The tables of a history in PostgreSQL, the functions that write them, and the statements that read them.

Four tables for each history, in the first schema of the connection's search_path:

- `<name>_log`, one row: the name of the history and its ends. An append or trim holds the lock on this row until it
  commits, so positions have the order of the commits, without holes. A sequence promises neither.
- `<name>_events`: the entries, by position. `start` is the number of bytes before the entry, so comparing two numbers
  is enough for the bound of bytes.
- `<name>_messages`: the side channel. The table is unlogged, and its rows live for a minute.
- `<name>_facts`: what all hubs have to know for a while. Who writes locks the table, so numbers follow the commits.

Appending and trimming are functions in the database, so that one round trip is enough and the lock is never held while
bytes travel. Each statement of a PL/pgSQL function sees what was committed before the statement began. So the
statements behind the lock see all earlier appends, which the parts of a single statement (a CTE) would not.
"""

from __future__ import annotations

import re

from psycopg import sql

from ssepool.brokers.base import PAGE_FACTS, PAGE_PLACES
from ssepool.brokers.record import AROUND_ID_BYTES, DIGEST_CHARACTERS, MAX_MADE_ID_BYTES, STORED_BYTES
from ssepool.config import MiB

TABLES_VERSION = 3
"""The version of these tables and functions."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,50}")
"""A name that a history may have. Identifiers have at most 63 bytes, and ours are the name and a suffix."""

PAGE_BYTES = MiB
"""Bytes at which a page ends; its last entry may exceed them."""

GRACE_SECONDS = 5
"""Seconds that rows beyond the bounds stay, for tails that have not read them yet."""

PARTS = ("log", "events", "messages", "facts", "ids", "claims", "trim", "append", "keep", "news", "mail")
"""What the names of a history's tables, indexes, functions and channels end in."""

SLICE_ENTRIES = 10_000
"""Entries that one statement deletes at most."""

_MAKE = """
SELECT pg_advisory_xact_lock(hashtext('ssepool'), hashtext({name}));

CREATE TABLE IF NOT EXISTS {log} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    epoch text NOT NULL,
    newest bigint NOT NULL DEFAULT 0,
    oldest bigint NOT NULL DEFAULT 0,
    ends bigint NOT NULL DEFAULT 0,
    begins bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {events} (
    position bigint PRIMARY KEY,
    id text,
    topics text[] NOT NULL,
    private boolean NOT NULL,
    frame bytea NOT NULL,
    start bigint NOT NULL,
    at timestamptz NOT NULL,
    claim text
);
ALTER TABLE {events} ALTER COLUMN frame SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS {ids} ON {events} (id, position) WHERE id IS NOT NULL;

ALTER TABLE {events} ADD COLUMN IF NOT EXISTS claim text;
CREATE INDEX IF NOT EXISTS {claims} ON {events} (claim, position) WHERE claim IS NOT NULL;
UPDATE {events} SET claim = id || ' ' || left(encode(sha256(convert_to((
    SELECT coalesce(string_agg(topic, E'\\n' ORDER BY topic COLLATE "C"), '')
    FROM (SELECT DISTINCT unnest(topics) AS topic) AS given
), 'UTF8')), 'hex'), {digest}) WHERE id IS NOT NULL AND claim IS NULL;
CREATE UNLOGGED TABLE IF NOT EXISTS {messages} (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    message bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS {facts} (
    name text PRIMARY KEY,
    number bigint NOT NULL UNIQUE,
    until timestamptz NOT NULL,
    data bytea NOT NULL
);

WITH begun AS (
    INSERT INTO {log} (version, epoch) VALUES ({version}, {epoch}) ON CONFLICT (one) DO NOTHING RETURNING one
)
DELETE FROM {events} WHERE EXISTS (SELECT FROM begun);
UPDATE {log} SET version = {version};
DROP FUNCTION IF EXISTS
    {append}(text[], text[], boolean[], bytea[], boolean, bigint, bigint, double precision);

CREATE OR REPLACE FUNCTION {trim}(most_events bigint, most_bytes bigint, most_age double precision)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    kept record;
    first record;
    young timestamptz := clock_timestamp() - make_interval(secs => most_age);
BEGIN
    SELECT * INTO kept FROM {log} FOR UPDATE;
    IF kept.newest - kept.oldest > most_events OR kept.ends - kept.begins > most_bytes
        OR EXISTS (SELECT FROM {events} WHERE position = kept.oldest + 1 AND at <= young)
    THEN
        SELECT position - 1 AS oldest, start AS begins INTO first FROM {events}
        WHERE position > greatest(kept.oldest, kept.newest - most_events)
            AND start >= kept.ends - most_bytes AND at > young
        ORDER BY position LIMIT 1;
        UPDATE {log} SET oldest = coalesce(first.oldest, kept.newest), begins = coalesce(first.begins, kept.ends);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {keep}(given_name text, given_data bytea, seconds double precision, most bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    latest bigint;
BEGIN
    LOCK TABLE {facts} IN SHARE ROW EXCLUSIVE MODE;
    moment := clock_timestamp();
    DELETE FROM {facts} WHERE until <= moment;
    IF (SELECT count(*) FROM {facts} WHERE name <> given_name) >= most THEN
        RETURN false;
    END IF;
    SELECT coalesce(max(number), 0) INTO latest FROM {facts};
    INSERT INTO {facts} (name, number, until, data) VALUES (
        given_name, greatest(latest + 1, (1000000 * extract(epoch FROM moment))::bigint),
        moment + make_interval(secs => seconds), given_data
    ) ON CONFLICT (name) DO UPDATE SET number = excluded.number, until = excluded.until, data = excluded.data;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION {append}(
    given_claims text[], given_ids text[], given_topics text[], given_private boolean[], given_frames bytea[],
    mode text, most_events bigint, most_bytes bigint, most_age double precision
)
RETURNS TABLE (
    epoch text, after bigint, known_claims text[], known_positions bigint[], known_private boolean[],
    known_frames bytea[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    kept record;
    stored bigint;
    grown bigint;
BEGIN
    SELECT * INTO kept FROM {log} FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(claim), '{{}}'), coalesce(array_agg(position), '{{}}'),
        coalesce(array_agg(private), '{{}}'), coalesce(array_agg(frame), '{{}}')
    INTO known_claims, known_positions, known_private, known_frames
    FROM {events} WHERE claim = ANY (given_claims) AND position > kept.oldest;
    IF known_claims = '{{}}' AND mode <> 'look' OR mode = 'ignore' AND NOT EXISTS (
        SELECT FROM unnest(given_claims, given_private, given_frames) AS given (claim, private, frame)
        JOIN unnest(known_claims, known_private, known_frames) AS known (claim, private, frame) USING (claim)
        WHERE (known.private, known.frame) <> (given.private, given.frame)
    ) THEN
        WITH fresh AS (
            SELECT *, row_number() OVER (ORDER BY place) AS number,
                octet_length(frame) + octet_length(topics) + {around_id} + coalesce(octet_length(id), {made_id}) AS size
            FROM unnest(given_claims, given_ids, given_topics, given_private, given_frames)
                WITH ORDINALITY AS given (claim, id, topics, private, frame, place)
            WHERE claim IS NULL OR claim <> ALL (known_claims)
        ), placed AS (
            SELECT *, sum(size) OVER (ORDER BY number) AS upto FROM fresh
        ), inserted AS (
            INSERT INTO {events} (position, id, topics, private, frame, start, at, claim)
            SELECT kept.newest + number, id, string_to_array(topics, E'\\n'), private, frame,
                kept.ends + upto - size, clock_timestamp(), claim
            FROM placed
        )
        SELECT count(*), coalesce(max(upto), 0) INTO stored, grown FROM placed;
        UPDATE {log} SET newest = newest + stored, ends = ends + grown;
        PERFORM {trim}(most_events, most_bytes, most_age);
        PERFORM pg_notify({news}, '');
    END IF;
    epoch := kept.epoch;
    after := kept.newest;
    RETURN NEXT;
END $$;
"""

_PROBE = """
SELECT version FROM {log}
WHERE NOT EXISTS (SELECT position, id, topics, private, frame, start, at FROM {events} LIMIT 0)
    AND NOT EXISTS (SELECT id, message, at FROM {messages} LIMIT 0)
    AND NOT EXISTS (SELECT name, number, until, data FROM {facts} LIMIT 0)
"""

_APPEND = "SELECT * FROM {append}(%b, %b, %b, %b, %b, %s, %s, %s, %s)"

_PAGE = """
WITH first AS (
    SELECT position, start FROM {events}
    WHERE EXISTS (SELECT FROM {log}) AND position <= (SELECT newest FROM {log})
        AND position > greatest(%(after)s::bigint, CASE WHEN %(kept)s THEN (SELECT oldest FROM {log}) END)
    ORDER BY position LIMIT 1
)
SELECT (SELECT epoch FROM {log}), position, id, topics, private, frame FROM {events}
WHERE position >= (SELECT position FROM first) AND position < (SELECT position FROM first) + %(most)s::bigint
    AND position <= (SELECT newest FROM {log}) AND start < (SELECT start FROM first) + {page_bytes}
ORDER BY position
"""

_ADOPT = """
WITH adopted AS (
    UPDATE {events} SET start = (SELECT ends FROM {log}), at = clock_timestamp()
    WHERE position > (SELECT newest FROM {log}) AND position <= (SELECT newest FROM {log}) + %s::bigint
    RETURNING position
)
UPDATE {log} SET newest = greatest(newest, coalesce((SELECT max(position) FROM adopted), 0))
"""

_PLACES = """
SELECT position, topics, private FROM {events}
WHERE id = %s AND position > greatest(%s::bigint, (SELECT oldest FROM {log}))
ORDER BY position LIMIT {places}
"""

_DELETE = """
WITH gone AS (
    DELETE FROM {events} WHERE position <= (
        SELECT max(position) FROM (
            SELECT position FROM {events}
            WHERE position <= (SELECT oldest FROM {log}) AND at < now() - make_interval(secs => {grace})
            ORDER BY position LIMIT {deleted}
        ) AS first
    ) RETURNING position
), forgotten AS (
    DELETE FROM {messages} WHERE at < now() - interval '1 minute'
)
SELECT count(*) FROM gone
"""

_SEND = """
WITH sent AS (INSERT INTO {messages} (message) VALUES (%b) RETURNING id)
SELECT pg_notify({mail}, id::text) FROM sent
"""

_KEPT = """
SELECT name, number, data FROM {facts} WHERE number > %s AND until > clock_timestamp()
ORDER BY number LIMIT {page_facts}
"""


class Tables:
    """The statements for the history of one name, as bytes for `Session.ask`."""

    def __init__(self, name: str) -> None:
        """`name` is a name that `NAME_PATTERN` allows."""
        self._parts: dict[str, sql.Composable] = {part: sql.Identifier(f"{name}_{part}") for part in PARTS}
        self.name = name
        """The name of the history."""
        self.probe = self._query(_PROBE)
        """Select the version of the tables. It fails if they are not ssepool's, and has no row if they are empty."""
        self.append = self._query(_APPEND)
        """Append the events in five arrays, in one of the modes `ignore`, `refuse` (nothing is stored if a claim is
        known) and `look` (nothing is). Returns the epoch, the position before them, and the known events of their
        claims."""
        self.page = self._query(_PAGE, page_bytes=PAGE_BYTES)
        """Select at most `most` entries behind the position `after`; if `kept`, only entries within the bounds."""
        self.adopt = self._query(_ADOPT)
        """Go behind the rows that somebody else has put where the next so many entries belong."""
        self.places = self._query(_PLACES, places=PAGE_PLACES)
        """Select the position, topics and privacy of the next events of a chosen id behind a position."""
        self.bounds = self._query("SELECT epoch, oldest, newest, ends - begins FROM {log}")
        """Select the epoch, the positions of the ends, and the bytes of the history."""
        self.trim = self._query("SELECT {trim}(%s, %s, %s)")
        """Move the end of the history to the bounds of events, bytes and seconds; rows stay until `delete`."""
        self.delete = self._query(_DELETE, grace=GRACE_SECONDS, deleted=SLICE_ENTRIES)
        """Delete up to `SLICE_ENTRIES` rows beyond the bounds, and return their number."""
        self.send = self._query(_SEND, mail=f"{name}_mail")
        """Store a message of the side channel, and notify its listeners of its id."""
        self.message = self._query("SELECT message FROM {messages} WHERE id = %s::uuid")
        """Select a message of the side channel by its id."""
        self._add_facts()
        self.listen_for_news = self._query("LISTEN {news}")
        """Listen for the notifications of appends."""
        self.listen_for_mail = self._query("LISTEN {mail}")
        """Listen for the notifications of messages."""

    def _add_facts(self) -> None:
        self.keep = self._query("SELECT {keep}(%s, %b, %s, %s)")
        """Keep a fact for some seconds, if there are not so many others already. Returns whether it is kept."""
        self.kept = self._query(_KEPT, page_facts=PAGE_FACTS)
        """Select name, number and content of the next facts behind a number."""

    def make(self, epoch: str) -> bytes:
        """Several statements that create what is missing, in one transaction.

        A new history is given this epoch. Hubs that do it at once wait for each other.
        """
        name = self.name
        return self._query(
            _MAKE,
            name=name,
            version=TABLES_VERSION,
            epoch=epoch,
            news=f"{name}_news",
            around_id=AROUND_ID_BYTES + STORED_BYTES,
            made_id=MAX_MADE_ID_BYTES,
            digest=DIGEST_CHARACTERS,
        )

    def _query(self, text: str, **values: object) -> bytes:
        parts = {**self._parts, **{name: sql.Literal(value) for name, value in values.items()}}
        return sql.SQL(text).format(**parts).as_bytes()
