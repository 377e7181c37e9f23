-- Of no pool: how many codes of open redemptions, and credentials (secrets of subscriptions among them), are encrypted with each key.
SELECT c.key_id AS "key_id!", count(*) FILTER (WHERE c.is_code) AS "codes!", count(*) FILTER (WHERE NOT c.is_code) AS "credentials!"
FROM (
    SELECT key_of(r.code_ciphertext) AS key_id, true AS is_code
    FROM redemptions r
    WHERE r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW') AND r.code_ciphertext IS NOT NULL
    UNION ALL
    SELECT key_of(k.credentials), false
    FROM account_credentials k
    UNION ALL
    SELECT key_of(s.secret), false
    FROM subscriptions s
    UNION ALL
    SELECT key_of(s.secret_before), false
    FROM subscriptions s
) c
WHERE c.key_id IS NOT NULL
GROUP BY c.key_id
