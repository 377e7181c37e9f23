-- Of no pool: the functions of Postgres's own that the role may not call, of those that serving needs. $1 each with the
-- types of its arguments.
SELECT w.name AS "name!"
FROM unnest($1::text[]) AS w (name)
WHERE NOT has_function_privilege(w.name, 'EXECUTE')
