-- Of no pool: the secret keys, as far as the database has them, by their ids.
SELECT
    s.key_id,
    s.key_check,
    s.key_id = (SELECT i.current_key FROM installation i) AS "is_current!",
    s.retired_at IS NOT NULL AS "is_retired!",
    s.kept_by,
    s.kept
FROM secret_keys s
ORDER BY s.key_id
