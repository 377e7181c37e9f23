-- The redemption that has a code: its outcome is not known, or it is a success that was not taken back. There
-- is one at the most. No row: the code is free in this pool.
-- $1 pool_id, $2 the code's fingerprints by all keys.
SELECT
    r.redemption_id, r.request_id, r.principal, r.state
FROM redemptions r
WHERE r.pool_id = $1
  AND r.code_fingerprint = ANY ($2::bytea[])
  AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
  AND r.reversed_at IS NULL
