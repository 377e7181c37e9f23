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
)
UPDATE accounts a
SET balance_minor = a.balance_minor + s.amount_minor,
    open_redemption_id = NULL,
    release_requested = false,
    resume_status = 'PROCESSING',
    status = 'PROCESSING',
    reserved_minor = NULL,
    lease_end = 'released',
    idle_since = now()
FROM settled s
WHERE a.pool_id = 'bench'
  AND a.account_id = s.account_id
  AND a.open_redemption_id = s.redemption_id
RETURNING a.status AS account_status, a.balance_minor AS account_balance
