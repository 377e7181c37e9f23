-- Of no pool: who asks, in which schema migrations are noted and applied (null: none that the role may use), in which
-- table they were noted there (null: none were), whether it may be read, whether the role may make something in the
-- schema, which of our tables there belong to a role that it is no member of, and how the database encodes text.
-- Before this table had a name of its own, sqlx's was used, which other programs have, too: it is ours where our first
-- table is beside it.
SELECT
    current_user::text AS "role!",
    current_schema()::text AS "schema?",
    m.notes AS "notes?",
    COALESCE(has_table_privilege(to_regclass(m.schema || '.' || m.notes), 'SELECT'), false) AS "readable!",
    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS "may_create!",
    ARRAY(
        SELECT c.relname::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema()
          AND c.relname = ANY ($1)
          AND NOT pg_has_role(c.relowner, 'USAGE')
        ORDER BY c.relname
    ) AS "not_owned!",
    pg_encoding_to_char(d.encoding)::text AS "encoding!"
FROM
    pg_database d,
    LATERAL (SELECT quote_ident(current_schema()) AS schema) AS s,
    LATERAL (
        SELECT
            s.schema,
            CASE
                WHEN to_regclass(s.schema || '.holdfast_migrations') IS NOT NULL THEN 'holdfast_migrations'
                WHEN to_regclass(s.schema || '._sqlx_migrations') IS NOT NULL
                    AND to_regclass(s.schema || '.installation') IS NOT NULL THEN '_sqlx_migrations'
            END AS notes
    ) AS m
WHERE d.datname = current_database()
