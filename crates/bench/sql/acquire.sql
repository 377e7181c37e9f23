-- A lease on a free account, as one would write it by hand: any account, PROCESSING before WAITING, then the longest
-- unused, by an index that peers/by_hand.rs makes for it. Accounts of this pool have no plan, so nothing has to be
-- asked of one. Every column of the index is named, or Postgres would sort all that are free: peers/by_hand.rs checks
-- that it need not. As one would, it keeps what happened.
WITH done AS (
    UPDATE accounts a
    SET status = 'LOCKING',
        resume_status = a.status,
        fencing_token = a.fencing_token + 1,
        holder = 'bench',
        lease_request_id = gen_random_uuid()::text,
        lease_acquired_at = now(),
        lease_expires_at = now() + interval '1 minute',
        lease_end = NULL,
        version = a.version + 1
    WHERE a.pool_id = 'bench'
      AND a.account_id = (
          SELECT f.account_id
          FROM accounts f
          WHERE f.pool_id = 'bench'
            AND f.status IN ('PROCESSING', 'WAITING')
            AND f.login_status = 'ACTIVE'
            AND NOT f.paused
            AND NOT f.draining
            AND f.idle_since <= now()
          ORDER BY f.status, f.idle_since, f.account_id
          LIMIT 1
          FOR NO KEY UPDATE SKIP LOCKED
      )
      AND a.status IN ('PROCESSING', 'WAITING')
    RETURNING a.*
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status, fencing_token,
        redemption_id, balance_minor, lease_expires_at
    )
    SELECT 'bench', d.account_id, d.version, now(), 'bench', 'acquired', d.resume_status, d.status, d.fencing_token, d.open_redemption_id,
        d.balance_minor, d.lease_expires_at
    FROM done d
)
SELECT d.account_id, d.fencing_token, d.balance_minor, d.lease_expires_at FROM done d
