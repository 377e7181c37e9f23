-- The lease ends. The status is compared in a way that no partial index serves: while few accounts are
-- locked, Postgres would rather read all of those, and what is left of earlier ones, than look up the key.
UPDATE accounts a
SET status = a.resume_status,
    reserved_minor = NULL,
    lease_end = 'released',
    idle_since = now()
WHERE a.pool_id = 'bench'
  AND a.account_id = :account_id
  AND a.fencing_token = :fencing_token
  AND a.status = 'LOCKING'
  AND a.open_redemption_id IS NULL
RETURNING a.status
