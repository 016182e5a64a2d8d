"""The layout of a history in PostgreSQL: its tables, and the functions that write them.

Six tables for each history, in the first schema of the connection's search_path:

- `<name>_log`, one row: the name of the history and its ends. An append holds the lock on this row until it commits, so
  positions have the order of the commits. A sequence does not promise that. `started` and `relation` say which run of
  which server has named the epoch.
- `<name>_events`: the entries, by position.
- `<name>_cuts`: how far topics have been dropped.
- `<name>_timelines`: the names that the history had before.
- `<name>_messages`: the side channel. The table is unlogged, and its rows live for a minute.
- `<name>_facts`: what all hubs have to know for a while. Who writes locks the table, so numbers follow the commits.

Appending and dropping are functions in the database, so that one round trip is enough and the lock is never held while
bytes travel. Each statement of a PL/pgSQL function sees what was committed before the statement began. So the
statements behind the lock see all earlier appends, which the parts of a single statement (a CTE) would not.
"""

from __future__ import annotations

TABLES_VERSION = 4
"""The version of these tables and functions."""

TABLES = ("log", "events", "cuts", "timelines", "messages", "facts")
"""What the names of a history's tables end in."""

PARTS = (*TABLES, "ids", "claims", "forgotten", "append", "renew", "enter", "drop", "trim", "keep", "news", "mail")
"""What the names of a history's tables, indexes, functions and channels end in."""

SIZE = """octet_length(frame) + octet_length(array_to_string(topics, E'\\n')) + coalesce(octet_length(key), 0)
    + coalesce(octet_length(id), {made_id}) + {around_id}"""
"""What a row of the events counts for, in bytes. The length of a frame is known without reading it."""

MAKE_TABLES = """
SELECT pg_advisory_xact_lock(hashtext('ssepool'), hashtext({name}));

CREATE TABLE IF NOT EXISTS {log} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    epoch text NOT NULL,
    newest bigint NOT NULL DEFAULT 0,
    oldest bigint NOT NULL DEFAULT 0
);
ALTER TABLE {log} ADD COLUMN IF NOT EXISTS bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS floor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS started timestamptz DEFAULT pg_postmaster_start_time(),
    ADD COLUMN IF NOT EXISTS relation oid;
DO $$ BEGIN
    IF (SELECT version FROM {log}) > {version} THEN
        RAISE EXCEPTION 'the tables of % are of version %, made by a newer ssepool; this one knows %: update it',
            quote_literal({name}), (SELECT version FROM {log}), {version};
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS {events} (
    position bigint PRIMARY KEY,
    id text,
    topics text[] NOT NULL,
    private boolean NOT NULL,
    frame bytea NOT NULL,
    start bigint,
    at timestamptz NOT NULL,
    claim text,
    key text,
    removed boolean NOT NULL DEFAULT false
);
ALTER TABLE {events} ADD COLUMN IF NOT EXISTS claim text,
    ADD COLUMN IF NOT EXISTS key text,
    ADD COLUMN IF NOT EXISTS removed boolean NOT NULL DEFAULT false,
    ALTER COLUMN frame SET STORAGE EXTERNAL,
    ALTER COLUMN start DROP NOT NULL; -- versions before 4 look for this column before they see that they are too old
CREATE INDEX IF NOT EXISTS {ids} ON {events} (id, position) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS {claims} ON {events} (claim, position) WHERE claim IS NOT NULL;

CREATE TABLE IF NOT EXISTS {cuts} (
    topic text COLLATE "C" PRIMARY KEY,
    public bigint NOT NULL,
    private bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS {forgotten} ON {cuts} (greatest(public, private));

CREATE TABLE IF NOT EXISTS {timelines} (
    number bigint PRIMARY KEY,
    epoch text NOT NULL,
    ended bigint NOT NULL
);

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

UPDATE {events} SET claim = id || ' ' || left(encode(sha256(convert_to((
    SELECT coalesce(string_agg(topic, E'\\n' ORDER BY topic COLLATE "C"), '')
    FROM (SELECT DISTINCT unnest(topics) AS topic) AS given
), 'UTF8')), 'hex'), {digest}) WHERE id IS NOT NULL AND claim IS NULL;
DO $$ BEGIN
    IF (SELECT version FROM {log}) < 4 THEN
        DELETE FROM {events} WHERE position <= (SELECT oldest FROM {log});
        UPDATE {log} SET bytes = ends - begins, floor = oldest;
    END IF;
END $$;
ALTER TABLE {log} DROP COLUMN IF EXISTS ends, DROP COLUMN IF EXISTS begins;

WITH begun AS (
    INSERT INTO {log} (version, epoch, relation) VALUES ({version}, {epoch}, {relation})
    ON CONFLICT (one) DO NOTHING RETURNING one
), emptied AS (
    DELETE FROM {events} WHERE EXISTS (SELECT FROM begun)
), uncut AS (
    DELETE FROM {cuts} WHERE EXISTS (SELECT FROM begun)
)
DELETE FROM {timelines} WHERE EXISTS (SELECT FROM begun);
UPDATE {log} SET version = {version};
"""
"""Make the tables that are missing, and take over those of earlier versions."""

MAKE_FUNCTIONS = """
DROP FUNCTION IF EXISTS
    {append}(text[], text[], boolean[], bytea[], boolean, bigint, bigint, double precision),
    {append}(text[], text[], text[], boolean[], bytea[], text, bigint, bigint, double precision),
    {trim}(bigint, bigint, double precision);

-- What versions 2 and 3 call. They would make their own again if it were missing.
CREATE FUNCTION {append}(text[], text[], text[], boolean[], bytea[], text, bigint, bigint, double precision)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the tables of % are of version {version}, made by a newer ssepool: update this one',
        quote_literal({name});
END $$;

CREATE OR REPLACE FUNCTION {renew}(given_epoch text, fresh text)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    kept record;
BEGIN
    SELECT * INTO kept FROM {log} WHERE epoch = given_epoch FOR UPDATE;
    IF FOUND THEN
        INSERT INTO {timelines} (number, epoch, ended)
        SELECT coalesce(max(number), 0) + 1, kept.epoch, kept.newest FROM {timelines};
        DELETE FROM {timelines} WHERE number <= (SELECT max(number) FROM {timelines}) - {timelines_kept};
        UPDATE {log} SET epoch = fresh, started = pg_postmaster_start_time(), relation = tableoid;
        PERFORM pg_notify({news}, '');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {enter}(fresh text)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock({open}) THEN
        PERFORM {renew}(epoch, fresh) FROM {log} WHERE newest > 0;
    END IF;
    PERFORM pg_advisory_lock_shared({open});
END $$;

CREATE OR REPLACE FUNCTION {append}(
    given_claims text[], given_ids text[], given_topics text[], given_private boolean[], given_frames bytea[],
    given_keys text[], given_removed boolean[], mode text, seen jsonb, fresh text
)
RETURNS TABLE (
    epoch text, after bigint, known_claims text[], known_positions bigint[], known_private boolean[],
    known_frames bytea[], known_keys text[], known_removed boolean[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    kept record;
    stored bigint;
    grown bigint;
BEGIN
    SELECT *, tableoid AS here INTO kept FROM {log} FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF (seen ->> kept.epoch)::bigint > kept.newest OR kept.relation IS DISTINCT FROM kept.here
        OR kept.started IS DISTINCT FROM pg_postmaster_start_time()
    THEN
        PERFORM {renew}(kept.epoch, fresh);
        kept.epoch := fresh;
    END IF;
    SELECT coalesce(array_agg(claim), '{{}}'), coalesce(array_agg(position), '{{}}'),
        coalesce(array_agg(private), '{{}}'), coalesce(array_agg(frame), '{{}}'),
        coalesce(array_agg(key), '{{}}'), coalesce(array_agg(removed), '{{}}')
    INTO known_claims, known_positions, known_private, known_frames, known_keys, known_removed
    FROM {events} WHERE claim = ANY (given_claims);
    IF known_claims = '{{}}' AND mode <> 'look' OR mode = 'ignore' AND NOT EXISTS (
        SELECT FROM unnest(given_claims, given_private, given_frames, given_keys, given_removed)
            AS given (claim, private, frame, key, removed)
        JOIN unnest(known_claims, known_private, known_frames, known_keys, known_removed)
            AS known (claim, private, frame, key, removed) USING (claim)
        WHERE (known.private, known.frame, known.key, known.removed)
            IS DISTINCT FROM (given.private, given.frame, given.key, coalesce(given.removed, false))
    ) THEN
        WITH fresh AS (
            SELECT *, row_number() OVER (ORDER BY place) AS number
            FROM unnest(given_claims, given_ids, given_topics, given_private, given_frames, given_keys, given_removed)
                WITH ORDINALITY AS given (claim, id, topics, private, frame, key, removed, place)
            WHERE claim IS NULL OR claim <> ALL (known_claims)
        ), inserted AS (
            INSERT INTO {events} (position, id, topics, private, frame, at, claim, key, removed)
            SELECT kept.newest + number, id, string_to_array(topics, E'\\n'), private, frame, clock_timestamp(), claim,
                key, coalesce(removed, false)
            FROM fresh RETURNING {size} AS size
        )
        SELECT count(*), coalesce(sum(size), 0) INTO stored, grown FROM inserted;
        UPDATE {log} SET newest = newest + stored, bytes = bytes + grown;
        PERFORM pg_notify({news}, '');
    END IF;
    epoch := kept.epoch;
    after := kept.newest;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION {drop}(
    given_epoch text, seen bigint, places bigint[], topics text[], publics bigint[], privates bigint[],
    given_floor bigint
)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    kept record;
    freed bigint;
    bottom bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('ssepool drop'), hashtext({name}));
    SELECT greatest(floor, given_floor) INTO bottom FROM {log};
    WITH gone AS (
        DELETE FROM {events} WHERE position = ANY (places) RETURNING {size} AS size
    )
    SELECT coalesce(sum(size), 0) INTO freed FROM gone;
    INSERT INTO {cuts} AS known (topic, public, private)
    SELECT topic, public, private FROM unnest(topics, publics, privates) AS given (topic, public, private)
    WHERE greatest(public, private) > bottom
    ON CONFLICT (topic) DO UPDATE
    SET public = greatest(known.public, excluded.public), private = greatest(known.private, excluded.private)
    WHERE excluded.public > known.public OR excluded.private > known.private;
    SELECT * INTO kept FROM {log} FOR UPDATE;
    IF kept.epoch IS DISTINCT FROM given_epoch THEN
        RAISE EXCEPTION 'nothing was dropped, for the history has another name by now';
    ELSIF seen > kept.newest THEN
        RAISE EXCEPTION 'nothing was dropped, for the history has less than it had';
    END IF;
    IF bottom > kept.floor THEN
        DELETE FROM {cuts} WHERE greatest(public, private) <= bottom;
    END IF;
    UPDATE {log} SET bytes = greatest(0, kept.bytes - freed), floor = bottom, oldest = coalesce((
        SELECT min(position) - 1 FROM {events} WHERE position > kept.oldest AND position <= kept.newest
    ), kept.newest);
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
"""
"""Make the functions."""
