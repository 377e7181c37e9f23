-- A redemption is recorded under its lease, and marked on its account. Its name is in the order of time, as Holdfast's are; the
-- fingerprint and the ciphertext are as long as Holdfast's. The account is looked up by its key, as in
-- release.sql.
WITH recorded AS (
    INSERT INTO redemptions AS r (
        pool_id, redemption_id, account_id, fencing_token, request_id, holder, state, release_on_completion,
        code_fingerprint, code_ciphertext, code_last4, expected_minor, not_after, next_check_at
    )
    SELECT
        'bench',
        (
            lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
            || substr(gen_random_uuid()::text, 14)
        )::uuid,
        a.account_id, a.fencing_token, gen_random_uuid()::text, a.holder, 'SUBMITTED', true,
        sha256(uuid_send(gen_random_uuid())),
        sha256(uuid_send(gen_random_uuid())) || sha256(uuid_send(gen_random_uuid())),
        '1234', 1000, now() + interval '15 minutes', now() + interval '50 seconds'
    FROM accounts a
    WHERE a.pool_id = 'bench'
      AND a.account_id = :account_id
      AND a.fencing_token = :fencing_token
      AND a.status = 'LOCKING'
      AND a.lease_expires_at > now()
      AND a.open_redemption_id IS NULL
    FOR NO KEY UPDATE OF a
    RETURNING r.redemption_id, r.account_id
),
done AS (
    UPDATE accounts a
    SET open_redemption_id = r.redemption_id,
        version = a.version + 1
    FROM recorded r
    WHERE a.pool_id = 'bench'
      AND a.account_id = r.account_id
      AND a.fencing_token = :fencing_token
    RETURNING a.*
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status, fencing_token,
        redemption_id, balance_minor, lease_expires_at
    )
    SELECT 'bench', d.account_id, d.version, now(), 'bench', 'redeem_begun', 'LOCKING', d.status, d.fencing_token, d.open_redemption_id,
        d.balance_minor, d.lease_expires_at
    FROM done d
)
SELECT d.open_redemption_id AS redemption_id FROM done d
