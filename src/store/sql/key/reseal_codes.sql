-- Of no pool: keeps codes of open redemptions under another key, and their fingerprints by it. One that was settled
-- meanwhile has no code any more, and stays as it is; so does one whose row somebody holds. Answers how many. None where
-- the key is not current any more.
-- $1 the key; one element for each redemption: $2 pool ids, $3 redemption ids, $4 the codes as they were stored, $5 as
-- they are to be, $6 fingerprints.
WITH found AS MATERIALIZED (
    SELECT r.pool_id, r.redemption_id, w.was, w.code_ciphertext, w.code_fingerprint
    FROM unnest($2::text[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[])
        AS w (pool_id, redemption_id, was, code_ciphertext, code_fingerprint)
    JOIN redemptions r ON r.pool_id = w.pool_id AND r.redemption_id = w.redemption_id
    WHERE r.code_ciphertext = w.was
      AND $1::int = (SELECT i.current_key FROM installation i)
    ORDER BY r.redemption_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
written AS (
    UPDATE redemptions r
    SET code_ciphertext = k.code_ciphertext,
        code_fingerprint = k.code_fingerprint,
        code_fingerprint_key = $1::int
    FROM found k
    WHERE r.pool_id = k.pool_id
      AND r.redemption_id = k.redemption_id
      AND r.code_ciphertext = k.was
      AND r.finished_at IS NULL
    RETURNING r.redemption_id
)
SELECT count(*) AS "written!"
FROM written
