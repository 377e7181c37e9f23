-- How large the tables are, in bytes, of those that are twice as large as when Postgres last counted their
-- rows, or more; 0 where it knows them well enough. Of all pools: a table is planned for as a whole. The
-- least is 8 pages: among fewer rows nothing is far. A page has 8192 bytes, unless Postgres was built
-- otherwise; it is then asked sooner or later.
SELECT COALESCE(sum(pg_relation_size(c.oid)), 0)::bigint AS "bytes!"
FROM pg_class c
WHERE c.oid IN ('accounts'::regclass, 'redemptions'::regclass, 'plans'::regclass)
  AND pg_relation_size(c.oid) >= 2 * GREATEST(c.relpages, 8) * 8192
