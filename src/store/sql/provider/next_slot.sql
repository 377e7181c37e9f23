-- Of no pool: in how long the first place of a kind is free again, where no place is free and none is under way: the
-- calls that had them have failed, or their answers are overdue. NULL otherwise.
-- $1 the provider, $2 the kind, $3 how many places there are.
SELECT CASE
    WHEN bool_and(s.free_at > now() AND s.answer_by <= now()) THEN min(s.free_at) - now()
END AS free_in
FROM provider_slots s
WHERE s.provider_id = $1 AND s.kind = $2 AND s.slot < $3
