-- Of no pool: takes a free place. No row: none is free, or others are taking them.
-- $1 the provider, $2 the kind, $3 how many places there are, $4 for how long, $5 until the answer must be there.
WITH free AS MATERIALIZED (
    SELECT s.slot
    FROM provider_slots s
    WHERE s.provider_id = $1 AND s.kind = $2 AND s.slot < $3 AND s.free_at <= now()
    ORDER BY s.slot
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
),
taken AS (
    UPDATE provider_slots s
    SET free_at = now() + $4::interval,
        answer_by = now() + $5::interval,
        taken = s.taken + 1
    FROM free f
    WHERE s.provider_id = $1 AND s.kind = $2 AND s.slot = f.slot
    RETURNING s.slot, s.taken
)
SELECT t.slot, t.taken
FROM taken t
