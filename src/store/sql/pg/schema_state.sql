-- Of no pool: who asks, in which schema migrations are noted and applied (null: none that the role may use), whether
-- any were noted there and may be read, whether the role may make something in it, and which of our tables there
-- belong to a role that it is no member of.
SELECT
    current_user::text AS "role!",
    current_schema()::text AS "schema?",
    m.relid IS NOT NULL AS "noted!",
    COALESCE(has_table_privilege(m.relid, 'SELECT'), false) AS "readable!",
    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS "may_create!",
    ARRAY(
        SELECT c.relname::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema()
          AND c.relname = ANY ($1)
          AND NOT pg_has_role(c.relowner, 'USAGE')
        ORDER BY c.relname
    ) AS "not_owned!"
FROM to_regclass(quote_ident(current_schema()) || '._sqlx_migrations') AS m (relid)
