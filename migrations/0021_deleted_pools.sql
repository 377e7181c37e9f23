-- Pools that are deleted, and made again under the same id.

-- A later pool of the same id has a later revision than the one before ever had: what a server remembers of that one is
-- not taken for the new one's. Changes raise it by the same clock.
ALTER TABLE pools ALTER COLUMN revision SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
