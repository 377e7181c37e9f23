-- Of no pool: keeps all places of a brake for a pause, where all of them are failures by now.
-- $1 the provider, $2 how many places there are, $3 for how long. Answers nothing.
UPDATE provider_slots s
SET free_at = greatest(s.free_at, now() + $3::interval)
WHERE s.provider_id = $1 AND s.kind = 'brake' AND s.slot < $2
  AND NOT EXISTS (
      SELECT FROM provider_slots o
      WHERE o.provider_id = $1 AND o.kind = 'brake' AND o.slot < $2
        AND (o.free_at <= now() OR o.answer_by > now())
  )
