-- The lease ends. The status is compared in a way that no partial index serves: while few accounts are
-- locked, Postgres would rather read all of those, and what is left of earlier ones, than look up the key.
WITH done AS (
    UPDATE accounts a
    SET status = a.resume_status,
        reserved_minor = NULL,
        lease_end = 'released',
        lease_request_id = NULL,
        idle_since = now(),
        version = a.version + 1
    WHERE a.pool_id = 'bench'
      AND a.account_id = :account_id
      AND a.fencing_token = :fencing_token
      AND a.status = 'LOCKING'
      AND a.open_redemption_id IS NULL
    RETURNING a.*
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status, fencing_token,
        redemption_id, balance_minor, lease_expires_at
    )
    SELECT 'bench', d.account_id, d.version, now(), 'bench', 'released', 'LOCKING', d.status, d.fencing_token, d.open_redemption_id,
        d.balance_minor, d.lease_expires_at
    FROM done d
)
SELECT d.status FROM done d
