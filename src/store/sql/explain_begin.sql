-- Why begin.sql recorded nothing for some inputs. Changes nothing.
-- $1 pool_id; one element for each input: $2 places, $3 account ids, $4 request ids,
-- $5 code fingerprints.
SELECT
    w.place AS "place!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1) AS "pool_exists!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.paused) AS "pool_paused!",
    a.status AS "status?",
    a.fencing_token AS "fencing_token?",
    a.lease_end AS "lease_end?",
    a.lease_expires_at <= now() AS "lease_expired?",
    a.release_requested AS "release_requested?",
    a.open_redemption_id AS "open_redemption_id?",
    same_request.redemption_id AS "same_request?",
    same_request.code_fingerprint AS "same_request_fingerprint?",
    same_code.redemption_id AS "same_code?",
    same_code.request_id AS "same_code_request_id?",
    same_code.state AS "same_code_state?"
FROM unnest($2::int[], $3::text[], $4::text[], $5::bytea[]) AS w (place, account_id, request_id, code_fingerprint)
LEFT JOIN accounts a ON a.pool_id = $1 AND a.account_id = w.account_id
LEFT JOIN redemptions same_request
    ON same_request.pool_id = $1 AND same_request.request_id = w.request_id
LEFT JOIN redemptions same_code
    ON same_code.pool_id = $1
    AND same_code.code_fingerprint = w.code_fingerprint
    AND same_code.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
