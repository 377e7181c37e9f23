-- A pool's accounts after $2, at most $3; of a status ($4), a login status ($5), a plan ($6), under a lease of a holder ($8),
-- that changed last from $9 to before $10, where they are not null. A page has at most $7 bytes and one row more: an account is not answered where those
-- before it have as many. "more" says of an account that another was found after it.
WITH found AS (
    SELECT
        a.*,
        -- 512: what the columns have that are not named here.
        octet_length(a.account_id) + octet_length(a.labels::text) + COALESCE(octet_length(a.holder), 0)
            + 512 AS bytes
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.account_id > $2
      AND ($4::text IS NULL OR a.status = $4)
      AND ($5::text IS NULL OR a.login_status = $5)
      AND ($6::text IS NULL OR a.plan_id = $6)
      AND ($8::text IS NULL OR (a.status = 'LOCKING' AND a.holder = $8))
      AND ($9::timestamptz IS NULL OR a.updated_at >= $9)
      AND ($10::timestamptz IS NULL OR a.updated_at < $10)
    ORDER BY a.account_id
    LIMIT $3
),
measured AS (
    SELECT
        f.*,
        sum(f.bytes) OVER page - f.bytes AS bytes_before,
        lead(true, 1, false) OVER page AS more
    FROM found f
    WINDOW page AS (ORDER BY f.account_id)
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
    m.lease_principal AS "lease_principal!",
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
    now() AS "db_now!",
    m.more AS "more!"
FROM measured m
WHERE m.bytes_before < $7::bigint
ORDER BY m.account_id
