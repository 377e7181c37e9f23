-- Of no pool: notes that nothing that is stored is encrypted with these keys any more, and keeps what their fingerprints
-- are made with.
-- $1 the current key, with which that is encrypted; one element for each other key: $2 ids, $3 what is kept.
UPDATE secret_keys s
SET retired_at = coalesce(s.retired_at, now()), kept_by = $1::int, kept = w.kept
FROM unnest($2::int[], $3::bytea[]) AS w (key_id, kept)
WHERE s.key_id = w.key_id AND $1::int = (SELECT i.current_key FROM installation i)
