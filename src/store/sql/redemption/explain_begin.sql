-- Redemptions that stand in the way of new ones: of the same request, and of the same code. Changes nothing.
-- $1 pool_id; one element for each input: $2 positions, $3 request ids, $4 code fingerprints, $5 whose requests.
SELECT
    w.position AS "position!",
    same_request.redemption_id AS "same_request?",
    same_request.code_fingerprint AS "same_request_fingerprint?",
    same_code.redemption_id AS "same_code?",
    same_code.request_id AS "same_code_request_id?",
    same_code.principal AS "same_code_principal?",
    same_code.state AS "same_code_state?"
FROM unnest($2::int[], $3::text[], $4::bytea[], $5::text[])
    AS w (position, request_id, code_fingerprint, principal)
LEFT JOIN redemptions same_request
    ON same_request.pool_id = $1 AND same_request.request_id = w.request_id
    AND same_request.principal = w.principal
LEFT JOIN redemptions same_code
    ON same_code.pool_id = $1
    AND same_code.code_fingerprint = w.code_fingerprint
    AND same_code.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
    AND same_code.reversed_at IS NULL
