-- Its outcome becomes known: it is recorded, the code wiped, the account credited and given back. It is
-- looked up by its key, as in release.sql.
WITH settled AS (
    UPDATE redemptions r
    SET state = 'SUCCEEDED',
        amount_minor = 1000,
        amount_currency = 'EUR',
        provider_ref = 'reference',
        attempts = r.attempts + 1,
        code_ciphertext = NULL,
        next_check_at = NULL,
        updated_at = now(),
        finished_at = now()
    WHERE r.pool_id = 'bench'
      AND r.redemption_id = :redemption_id
      AND r.finished_at IS NULL
    RETURNING r.account_id, r.redemption_id, r.amount_minor
),
done AS (
    UPDATE accounts a
    SET balance_minor = a.balance_minor + s.amount_minor,
        open_redemption_id = NULL,
        release_requested = false,
        resume_status = 'PROCESSING',
        status = 'PROCESSING',
        reserved_minor = NULL,
        lease_end = 'released',
        lease_request_id = NULL,
        idle_since = now(),
        version = a.version + 1
    FROM settled s
    WHERE a.pool_id = 'bench'
      AND a.account_id = s.account_id
      AND a.open_redemption_id = s.redemption_id
    RETURNING a.*
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status, fencing_token,
        redemption_id, balance_minor, lease_expires_at
    )
    SELECT 'bench', d.account_id, d.version, now(), 'bench', 'succeeded', 'LOCKING', d.status, d.fencing_token, d.open_redemption_id,
        d.balance_minor, d.lease_expires_at
    FROM done d
)
SELECT d.status AS account_status, d.balance_minor AS account_balance FROM done d
