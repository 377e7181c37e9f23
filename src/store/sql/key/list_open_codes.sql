-- Of no pool: open redemptions whose code or fingerprint was made with another key than the current one, by the key of
-- their unique index.
-- $1 pool_id and $2 account_id after which to go on, $3 the current key, $4 how many at the most.
SELECT r.pool_id, r.account_id, r.redemption_id, r.provider_id, r.code_ciphertext AS "code_ciphertext!"
FROM redemptions r
WHERE r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')
  AND (r.pool_id, r.account_id) > ($1, $2)
  AND r.code_ciphertext IS NOT NULL
  AND (key_of(r.code_ciphertext) IS DISTINCT FROM $3::int OR r.code_fingerprint_key <> $3::int)
ORDER BY r.pool_id, r.account_id
LIMIT $4
