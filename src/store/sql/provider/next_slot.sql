-- Of no pool: whether all places of a kind are kept by what has failed, or is overdue, so that none is under way; and in
-- how long the first of them is free.
-- $1 the provider, $2 the kind, $3 how many places there are.
SELECT
    bool_and(s.free_at > now() AND s.answer_by <= now()) AS all_kept,
    min(greatest(s.free_at, now())) - now() AS free_in
FROM provider_slots s
WHERE s.provider_id = $1 AND s.kind = $2 AND s.slot < $3
