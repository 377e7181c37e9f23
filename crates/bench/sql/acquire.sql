-- A lease on a free account, as one would write it by hand: any account, PROCESSING before WAITING, the
-- fullest first, then the longest unused, by the very index that Holdfast scans. Accounts of this pool
-- have no plan, so nothing has to be asked of one. Every column of the index is named, or Postgres would
-- sort all that are free: peers/by_hand.rs checks that it need not.
UPDATE accounts a
SET status = 'LOCKING',
    resume_status = a.status,
    fencing_token = a.fencing_token + 1,
    holder = 'bench',
    lease_request_id = gen_random_uuid()::text,
    lease_acquired_at = now(),
    lease_expires_at = now() + interval '1 minute',
    lease_end = NULL
WHERE a.pool_id = 'bench'
  AND a.account_id = (
      SELECT f.account_id
      FROM accounts f
      WHERE f.pool_id = 'bench'
        AND f.plan_key = ''
        AND f.plan_day = 1
        AND f.status IN ('PROCESSING', 'WAITING')
        AND f.login_status = 'ACTIVE'
        AND NOT f.paused
        AND NOT f.draining
        AND NOT f.parked
        AND f.idle_since <= now()
      ORDER BY f.status, -f.fullness_minor, f.idle_since, f.account_id
      LIMIT 1
      FOR NO KEY UPDATE SKIP LOCKED
  )
  AND a.status IN ('PROCESSING', 'WAITING')
RETURNING a.account_id, a.fencing_token, a.balance_minor, a.lease_expires_at
