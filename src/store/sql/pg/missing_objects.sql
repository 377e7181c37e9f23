-- Of no pool: what the schema lacks. $1 its kind, $2 its table (that of a table, function or type is empty), $3 its name,
-- one by one. A trigger that is switched off counts as missing, and an index that is not valid.
SELECT w.kind AS "kind!", w.table_name AS "table_name!", w.name AS "name!"
FROM
    unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (kind, table_name, name, place),
    LATERAL (SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(w.table_name)) AS oid) AS t
WHERE NOT CASE
    WHEN w.kind = 'table' THEN
        to_regclass(quote_ident(current_schema()) || '.' || quote_ident(w.name)) IS NOT NULL
    WHEN w.kind = 'column' THEN EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = w.name AND NOT a.attisdropped
    )
    WHEN w.kind = 'index' THEN EXISTS (
        SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = t.oid AND c.relname = w.name AND i.indisvalid
    )
    WHEN w.kind = 'trigger' THEN EXISTS (
        SELECT FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgname = w.name AND g.tgenabled IN ('O', 'A')
    )
    WHEN w.kind = 'function' THEN EXISTS (
        SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = current_schema() AND p.proname = w.name
    )
    ELSE EXISTS (
        SELECT FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
        WHERE n.nspname = current_schema() AND y.typname = w.name
    )
END
ORDER BY w.place
