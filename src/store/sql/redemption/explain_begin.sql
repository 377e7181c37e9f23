-- What stands in the way of new redemptions: the redemption of the same request, the one of the same code, and that the
-- caller knows too little of the secret keys. Changes nothing.
-- $1 pool_id; one element for each input: $2 positions, $3 request ids, $4 the keys of the fingerprints; one for each
-- fingerprint of a code, by whichever key: $5 positions, $6 keys, $7 fingerprints; one for
-- each input: $8 whose requests, $9 which attempts of them: earlier ones are not in the way.
SELECT
    w.position AS "position!",
    w.key_id <> coalesce((SELECT i.current_key FROM installation i), 1)
        OR EXISTS (
            SELECT FROM secret_keys s
            WHERE NOT EXISTS (
                SELECT FROM unnest($5::int[], $6::int[]) AS f (position, key_id)
                WHERE f.position = w.position AND f.key_id = s.key_id
            )
        ) AS "are_old_keys!",
    same_request.redemption_id AS "same_request?",
    same_request.code_fingerprint AS "same_request_fingerprint?",
    same_request.code_fingerprint_key AS "same_request_key?",
    same_code.redemption_id AS "same_code?",
    same_code.request_id AS "same_code_request_id?",
    same_code.principal AS "same_code_principal?",
    same_code.state AS "same_code_state?"
FROM unnest($2::int[], $3::text[], $4::int[], $8::text[], $9::int[])
    AS w (position, request_id, key_id, principal, attempt)
LEFT JOIN LATERAL (
    SELECT r.redemption_id, r.code_fingerprint, r.code_fingerprint_key
    FROM redemptions r
    WHERE r.pool_id = $1 AND r.request_id = w.request_id AND r.principal = w.principal AND r.attempt >= w.attempt
    ORDER BY r.attempt DESC
    LIMIT 1
) same_request ON true
LEFT JOIN unnest($5::int[], $7::bytea[]) AS p (position, fingerprint) ON p.position = w.position
LEFT JOIN redemptions same_code
    ON same_code.pool_id = $1
    AND same_code.code_fingerprint = p.fingerprint
    AND same_code.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
    AND same_code.reversed_at IS NULL
