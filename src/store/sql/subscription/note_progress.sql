-- Notes how far a subscription was delivered, and how its receiver does. No row: the claim is not the server's any more.
-- $1 pool_id, $2 subscription_id, $3 the claim, $4 the cursor, $5 how many tries in a row have failed, $6 for how long they do;
-- null: not at all; $7 until the next try; null: none waits, $8 what was wrong, $9 whether nothing is to be sent any more.
UPDATE subscriptions s
SET cursor = $4,
    failures = $5,
    failing_since = now() - $6::interval,
    next_try_at = now() + $7::interval,
    last_error = $8,
    paused = $9,
    claimed_by = CASE WHEN NOT $9 THEN s.claimed_by END,
    -- Another time, so that a person's change that was decided before it was paused is refused.
    updated_at = s.updated_at + CASE WHEN $9 THEN interval '1 microsecond' ELSE interval '0' END
WHERE s.pool_id = $1 AND s.subscription_id = $2 AND s.claim = $3
RETURNING s.claim
