-- Statements are planned once, for any pool. Told that a table has one pool alone, Postgres never takes
-- "all of the pool's rows" for few, as it would where most pools are small, and reads each row by its key.
-- Counts from the next ANALYZE on.
ALTER TABLE accounts ALTER COLUMN pool_id SET (n_distinct = 1);
ALTER TABLE redemptions ALTER COLUMN pool_id SET (n_distinct = 1);
