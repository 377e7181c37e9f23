-- Whether the database answers, and takes writes: no standby does, and no primary that was demoted by
-- default_transaction_read_only. And what the connection is like, which a pooler may decide. Of no pool.
-- $1, $2 settings and what they should be, $3 the mark that the connection was opened with: another one, or none, where
-- a pooler stands between. sqlx's names of prepared statements are seen by Postgres where a pooler does not give them
-- names of its own. And what time it is there.
SELECT
    current_setting('transaction_read_only') = 'off' AS "writable!",
    current_schema()::text AS "schema?",
    (extract(epoch FROM now()) * 1000)::bigint AS "now_ms!",
    COALESCE(current_setting('holdfast.connection', true), '') = $3 AS "direct!",
    ARRAY(
        SELECT w.name || ' is ' || COALESCE(current_setting(w.name, true), 'not known') || ', not ' || w.wanted
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (name, wanted, place)
        WHERE current_setting(w.name, true) IS DISTINCT FROM w.wanted
        ORDER BY w.place
    ) AS "differs!",
    EXISTS (SELECT FROM pg_prepared_statements p WHERE starts_with(p.name, 'sqlx_s_')) AS "own_names!"
