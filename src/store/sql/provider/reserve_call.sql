-- Of no pool: reserves the time of the next call by the rate, and answers in how long it is. No row: it is too far.
-- $1 the provider, $2 the time between two calls, $3 how far the calls of a burst may lie back, $4 the farthest.
UPDATE provider_limits l
SET next_call_at = greatest(l.next_call_at, l.held_until, now() - $3::interval) + $2::interval
WHERE l.provider_id = $1
  AND greatest(l.next_call_at, l.held_until) <= now() + $4::interval
RETURNING l.next_call_at - $2::interval - now() AS "wait!"
