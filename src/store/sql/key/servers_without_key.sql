-- Of no pool: how many servers that live have not read a secret key, as far as they have noted.
-- $1 the key's id, $2 for how long a server that lives may not have beaten.
SELECT count(*) AS "count!"
FROM servers s
WHERE s.beat_at > now() - $2::interval AND ($1::int = ANY (s.key_ids)) IS NOT TRUE
