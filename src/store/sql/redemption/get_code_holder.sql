-- The redemption that has the code of this one, if another has it: its outcome is not known, or it is a success that was
-- not taken back. There is one at the most.
-- $1 pool_id, $2 redemption id.
SELECT
    r.redemption_id, r.request_id, r.principal, r.state
FROM redemptions of_code
JOIN redemptions r ON r.pool_id = $1 AND r.code_fingerprint = of_code.code_fingerprint
WHERE of_code.pool_id = $1
  AND of_code.redemption_id = $2
  AND r.pool_id = $1
  AND r.redemption_id <> $2
  AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
  AND r.reversed_at IS NULL
