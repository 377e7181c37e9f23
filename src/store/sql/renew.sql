-- Renew, shape (c): leases end their duration from now instead.
-- $1 pool_id; one element for each renewal, in the order of their accounts: $2 account ids, $3 fencing
-- tokens, $4 lease durations.
-- A lease without a row in the answer is not its holder's any more, or its release was asked for.
UPDATE accounts a
SET lease_expires_at = ((now() AT TIME ZONE 'utc') + w.ttl) AT TIME ZONE 'utc',
    change_actor = a.holder,
    change_reason = 'renewed'
FROM unnest($2::text[], $3::bigint[], $4::interval[]) AS w (account_id, token, ttl)
WHERE a.pool_id = $1
  AND a.account_id = w.account_id
  AND a.status = 'LOCKING'
  AND a.fencing_token = w.token
  AND a.lease_expires_at > now()
  AND NOT a.release_requested
RETURNING
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
    a.usable_at AS "usable_at?",
    a.hold_until AS "hold_until?",
    a.hold_cause AS "hold_cause?",
    a.hold_count AS "hold_count!",
    a.paused AS "paused!",
    a.draining AS "draining!",
    a.fencing_token AS "fencing_token!",
    a.holder AS "holder?",
    a.lease_acquired_at AS "lease_acquired_at?",
    a.lease_expires_at AS "lease_expires_at?",
    a.release_requested AS "release_requested!",
    a.open_redemption_id AS "open_redemption_id?",
    a.created_at AS "created_at!",
    a.updated_at AS "updated_at!",
    -- The trigger of the table makes it the time of this statement.
    a.updated_at AS "db_now!"
