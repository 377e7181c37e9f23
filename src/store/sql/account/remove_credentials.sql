-- Removes an account's credentials. $1 pool_id, $2 account_id.
DELETE FROM account_credentials k
WHERE k.pool_id = $1 AND k.account_id = $2
