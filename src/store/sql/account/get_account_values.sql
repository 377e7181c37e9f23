-- What a profile's templates can name of an account: its country, its labels, and its credentials, encrypted; null where
-- it has none. $1 pool_id, $2 account_id. No row when there is no such account.
SELECT
    a.country_code,
    a.labels,
    k.credentials AS "credentials?"
FROM accounts a
LEFT JOIN account_credentials k ON k.pool_id = $1 AND k.account_id = a.account_id
WHERE a.pool_id = $1 AND a.account_id = $2
