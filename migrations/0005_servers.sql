-- Servers and their beats. A dead server's redemptions are looked up at once, instead of when its send window is
-- over: docs/adr/0042-a-dead-servers-redemptions-are-looked-up-at-once.md.

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
