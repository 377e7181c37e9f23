-- Of no pool: what the role may not do, of all that serving needs. $1, $2: tables, and what is done with each, pair
-- by pair. A table's right counts where each of its columns has it.
SELECT w.privilege AS "privilege!", w.table_name AS "object!"
FROM unnest($1::text[], $2::text[]) AS w (table_name, privilege)
WHERE CASE
    WHEN w.privilege = 'DELETE' THEN NOT has_table_privilege(to_regclass(w.table_name), 'DELETE')
    ELSE EXISTS (
        SELECT FROM pg_attribute c
        WHERE c.attrelid = to_regclass(w.table_name)
          AND c.attnum > 0
          AND NOT c.attisdropped
          -- Nobody writes these.
          AND (c.attgenerated = '' OR w.privilege = 'SELECT')
          AND NOT has_column_privilege(c.attrelid, c.attnum, w.privilege)
    )
END
