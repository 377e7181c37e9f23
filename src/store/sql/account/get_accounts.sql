-- Some accounts, in the order in which they are named. $1 pool_id, $2 account ids. At most $3 bytes are
-- answered and one row more: an account is not where those before it have as many.
WITH found AS (
    SELECT
        a.*,
        n.number,
        -- 512: what the columns have that are not named here.
        octet_length(a.account_id) + octet_length(a.labels::text) + COALESCE(octet_length(a.holder), 0)
            + 512 AS bytes
    FROM unnest($2::text[]) WITH ORDINALITY AS n (account_id, number)
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = n.account_id
),
measured AS (
    SELECT f.*, sum(f.bytes) OVER (ORDER BY f.number) - f.bytes AS bytes_before FROM found f
)
SELECT
    m.account_id AS "account_id!",
    m.status AS "status!",
    m.login_status AS "login_status!",
    m.plan_id AS "plan_id?",
    m.country_code AS "country_code?",
    m.balance_minor AS "balance_minor!",
    m.labels AS "labels!",
    m.plan_day AS "plan_day!",
    m.day_credited_minor AS "day_credited_minor!",
    m.reserved_minor AS "reserved_minor?",
    m.day_due_at AS "day_due_at?",
    m.cooldown_until AS "cooldown_until?",
    m.hold_until AS "hold_until?",
    m.hold_cause AS "hold_cause?",
    m.hold_count AS "hold_count!",
    m.paused AS "paused!",
    m.draining AS "draining!",
    m.fencing_token AS "fencing_token!",
    m.resume_status AS "resume_status?",
    m.holder AS "holder?",
    m.lease_request_id AS "lease_request_id?",
    m.lease_acquired_at AS "lease_acquired_at?",
    m.lease_expires_at AS "lease_expires_at?",
    m.lease_end AS "lease_end?",
    m.bound_by_lease AS "bound_by_lease!",
    m.release_requested AS "release_requested!",
    m.open_redemption_id AS "open_redemption_id?",
    m.idle_since AS "idle_since!",
    m.version AS "version!",
    m.change_id AS "change_id!",
    m.created_at AS "created_at!",
    m.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM measured m
WHERE m.bytes_before < $3::bigint
ORDER BY m.number
