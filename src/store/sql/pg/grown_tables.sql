-- Of no pool: whether a table has grown by a fifth, and by 8 pages at the least, since Postgres last counted its
-- rows, and how many pages it knew of then, in all. A page has 8192 bytes, unless Postgres was built otherwise;
-- it is then asked sooner or later. Rows that were not committed when they were counted had their pages already: so it is
-- also asked whether as many were committed since.
SELECT
    COALESCE(sum(c.relpages), 0)::bigint AS "known_pages!",
    COALESCE(
        bool_or(
            pg_relation_size(c.oid) / 8192 >= c.relpages::bigint + GREATEST(8, c.relpages / 5)
            OR pg_stat_get_live_tuples(c.oid) >= 500 + GREATEST(c.reltuples, 0) * 1.2
        ),
        false
    ) AS "grown!"
FROM pg_class c
WHERE c.oid IN ('accounts'::regclass, 'redemptions'::regclass, 'plans'::regclass)
