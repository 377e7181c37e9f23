-- The order of outcomes: which redemptions were settled, by which transaction. For WatchRedemptions:
-- docs/adr/0068-outcomes-are-followed-by-snapshots.md.

-- One row for each statement that recorded outcomes, written by it: also where a success follows a failure, or a success
-- is taken back. Rows are never changed. A reader has a snapshot, and reads the rows whose transaction that did not see.
-- So it misses none, in whatever order they were committed.
CREATE TABLE redemption_outcomes (
    pool_id text COLLATE "C" NOT NULL,
    -- The database in which the transaction ran: its system identifier, which is higher for one that was made later, and
    -- its timeline, which rises at every failover and restore. Numbers of transactions are compared within one timeline
    -- only: on the next one some are given again.
    system_id bigint NOT NULL,
    timeline integer NOT NULL,
    xid bigint NOT NULL,
    redemption_ids uuid[] NOT NULL CHECK (cardinality(redemption_ids) > 0),
    PRIMARY KEY (pool_id, system_id, timeline, xid)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE TRIGGER redemption_outcomes_append_only BEFORE UPDATE OR DELETE ON redemption_outcomes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
