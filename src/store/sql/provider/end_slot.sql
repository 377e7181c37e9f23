-- Of no pool: says when a place is free that was taken. One that is another's by now stays as it is.
-- $1 the provider, $2 the kind, $3 the place, $4 which taking of it, $5 in how long. Answers nothing.
UPDATE provider_slots s
SET free_at = now() + $5::interval,
    answer_by = '-infinity'
WHERE s.provider_id = $1 AND s.kind = $2 AND s.slot = $3 AND s.taken = $4
