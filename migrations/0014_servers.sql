-- Servers and their beats: docs/adr/0042-a-dead-servers-redemptions-are-looked-up-at-once.md.
-- Redemptions in flight on a server that has died are looked up at once, instead of when its send window is over.

-- Each start of a server is one row. Of no pool, like installation: a few rows, the same for all pools. Each server
-- changes its own row more than once a second; the fill factor leaves those versions on the row's page.
CREATE TABLE servers (
    -- A UUIDv7, new at each start: a server that was started again is another one.
    server_id uuid PRIMARY KEY,
    -- Rises while the server lives. Others compare it with what it was, and with no clock.
    beat bigint NOT NULL DEFAULT 0,
    -- When it last rose, by the database's clock. Rows that have not changed for long are removed.
    beat_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- The server that sends it. Null: it was begun by a version that did not say so.
ALTER TABLE redemptions ADD COLUMN server_id uuid;

-- No server looks it up early before this time: so that one does, and not all. It says nothing about next_check_at.
ALTER TABLE redemptions ADD COLUMN early_check_at timestamptz;
