-- Of no pool: keeps codes of open redemptions under another key, and their fingerprints by it. Failures of the same code
-- get that fingerprint too: a late credit of one is compared by it. One that was settled meanwhile has no code any more,
-- and stays as it is; so does one where somebody holds its row or one of its failures. Answers how many. None where the
-- key is not current any more.
-- $1 the key; one element for each redemption: $2 pool ids, $3 redemption ids, $4 the codes as they were stored, $5 as
-- they are to be, $6 fingerprints.
WITH asked AS MATERIALIZED (
    SELECT
        r.pool_id, r.redemption_id, r.code_fingerprint AS was_fingerprint, w.was, w.code_ciphertext,
        w.code_fingerprint
    FROM unnest($2::text[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[])
        AS w (pool_id, redemption_id, was, code_ciphertext, code_fingerprint)
    JOIN redemptions r ON r.pool_id = w.pool_id AND r.redemption_id = w.redemption_id
    WHERE r.code_ciphertext = w.was
      AND $1::int = (SELECT i.current_key FROM installation i)
),
-- Without a code: failures.
of_code AS MATERIALIZED (
    SELECT o.redemption_id AS open_id, o.*
    FROM asked o
    UNION ALL
    SELECT o.redemption_id, o.pool_id, f.redemption_id, o.was_fingerprint, NULL, NULL, o.code_fingerprint
    FROM asked o
    JOIN redemptions f ON f.pool_id = o.pool_id AND f.code_fingerprint = o.was_fingerprint
    WHERE f.state = 'FAILED'
),
held AS MATERIALIZED (
    SELECT c.*
    FROM of_code c
    JOIN redemptions r ON r.pool_id = c.pool_id AND r.redemption_id = c.redemption_id
    WHERE r.code_ciphertext IS NOT DISTINCT FROM c.was
      AND r.code_fingerprint = c.was_fingerprint
    ORDER BY r.redemption_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
written AS (
    UPDATE redemptions r
    SET code_ciphertext = k.code_ciphertext,
        code_fingerprint = k.code_fingerprint,
        code_fingerprint_key = $1::int
    FROM held k
    WHERE r.pool_id = k.pool_id
      AND r.redemption_id = k.redemption_id
      AND r.code_ciphertext IS NOT DISTINCT FROM k.was
      AND (k.was IS NULL) = (r.state = 'FAILED')
      AND (k.was IS NULL) = (r.finished_at IS NOT NULL)
      AND k.open_id NOT IN (
          SELECT c.open_id FROM of_code c WHERE c.redemption_id NOT IN (SELECT h.redemption_id FROM held h)
      )
    RETURNING k.was IS NOT NULL AS is_code
)
SELECT count(*) FILTER (WHERE w.is_code) AS "written!"
FROM written w
