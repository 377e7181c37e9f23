-- Claims a subscription that nobody delivers, and answers how to go on with it. No row: another server was first, or it was
-- changed. $1 pool_id, $2 subscription_id, $3 the claim as it was read, $4 the server's id.
UPDATE subscriptions s
SET claim = s.claim + 1, claimed_by = $4
WHERE s.pool_id = $1 AND s.subscription_id = $2 AND s.claim = $3 AND NOT s.paused
RETURNING
    s.claim, s.url, s.states, s.secret, s.secret_before, s.secret_before_end - now() AS secret_before_left, s.cursor,
    s.failures, now() - s.failing_since AS failing_for, s.next_try_at - now() AS next_try_in, s.last_error
