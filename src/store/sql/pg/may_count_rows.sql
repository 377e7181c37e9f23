-- Of no pool: whether the role may count the rows of the tables (analyze.sql): it owns them or the database, or was
-- given MAINTAIN, which Postgres 17 has and later ones, and with it a role pg_maintain.
SELECT COALESCE(bool_and(
    pg_has_role(c.relowner, 'USAGE')
    OR pg_has_role(d.datdba, 'USAGE')
    OR CASE
        WHEN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'pg_maintain')
            THEN has_table_privilege(c.oid, 'MAINTAIN')
        ELSE false
    END
), false) AS "may_count!"
FROM pg_class c JOIN pg_database d ON d.datname = current_database()
WHERE c.oid IN ('accounts'::regclass, 'redemptions'::regclass, 'plans'::regclass)
