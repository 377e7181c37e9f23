-- Accounts as they are: those with the ids $2, and those that are under a lease of the requests $3 of the principals
-- $4. $1 pool_id.
SELECT
    a.account_id AS "account_id!",
    a.status AS "status!",
    a.login_status AS "login_status!",
    a.plan_id AS "plan_id?",
    a.country_code AS "country_code?",
    a.balance_minor AS "balance_minor!",
    a.labels AS "labels!",
    a.plan_day AS "plan_day!",
    a.day_credited_minor AS "day_credited_minor!",
    a.reserved_minor AS "reserved_minor?",
    a.day_due_at AS "day_due_at?",
    a.cooldown_until AS "cooldown_until?",
    a.hold_until AS "hold_until?",
    a.hold_cause AS "hold_cause?",
    a.hold_count AS "hold_count!",
    a.paused AS "paused!",
    a.draining AS "draining!",
    a.fencing_token AS "fencing_token!",
    a.resume_status AS "resume_status?",
    a.holder AS "holder?",
    a.lease_principal AS "lease_principal!",
    a.lease_request_id AS "lease_request_id?",
    a.lease_acquired_at AS "lease_acquired_at?",
    a.lease_expires_at AS "lease_expires_at?",
    a.lease_end AS "lease_end?",
    a.bound_by_lease AS "bound_by_lease!",
    a.release_requested AS "release_requested!",
    a.open_redemption_id AS "open_redemption_id?",
    a.idle_since AS "idle_since!",
    a.version AS "version!",
    a.change_id AS "change_id!",
    a.created_at AS "created_at!",
    a.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM (
    SELECT i.*
    FROM unnest($2::text[]) AS w (account_id)
    JOIN accounts i ON i.pool_id = $1 AND i.account_id = w.account_id
    UNION ALL
    SELECT r.*
    FROM unnest($3::text[], $4::text[]) AS w (request_id, principal)
    JOIN leases l ON l.pool_id = $1 AND l.request_id = w.request_id AND l.principal = w.principal
    JOIN accounts r ON r.pool_id = $1 AND r.account_id = l.account_id
    WHERE r.lease_request_id = l.request_id AND r.lease_principal = l.principal
) a
