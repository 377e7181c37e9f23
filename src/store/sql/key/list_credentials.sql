-- Of no pool: credentials that were encrypted with another key than the current one, by their accounts.
-- $1 pool_id and $2 account_id after which to go on, $3 the current key, $4 how many at the most.
SELECT k.pool_id, k.account_id, k.credentials
FROM account_credentials k
WHERE (k.pool_id, k.account_id) > ($1, $2) AND key_of(k.credentials) IS DISTINCT FROM $3::int
ORDER BY k.pool_id, k.account_id
LIMIT $4
