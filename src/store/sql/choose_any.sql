-- Choose, as choose.sql does, for what that does not serve: requests of several amounts, an account that is named,
-- and accounts whose time has come and that nobody has promoted yet. Changes nothing.
-- $1 pool_id; $2 request ids, $3 the amounts that are expected, each once (null: not given); $4 how many accounts
-- at the most for each amount. The selector, the same for all and null where it does not say: $5 account_id, $6
-- plan_id (accounts of this plan first, then ones without a plan, which are bound to it), $7 country_code, $8 the
-- card's country, or unknown, $9 min_headroom in minor units; $10 labels, and an account must carry them all; $11
-- account ids that are not wanted. Answers, for each amount by its position in $3, counted from 1, with the
-- accounts that fit it, the best first. With position 0: the leases that the requests have already. Nothing else
-- where the pool is paused or draining. What can be picked, by plan and day: accounts of the plans, and accounts
-- of none (''). The latter have the terms of the asked plan, if one is asked for, and are on its first day.
WITH kind AS MATERIALIZED (
    SELECT
        t.plan_key, t.plan_key <> '' AS has_plan, w.number, w.expected,
        -- The fullest that may fit: where the scan of the index begins.
        CASE WHEN t.plan_key = '' THEN 0 ELSE COALESCE(w.expected, 1) - t.target_minor END AS first,
        -- And the most that may have been credited on the day. The last one has no limit of its own.
        d.day,
        CASE
            WHEN d.day < cardinality(t.day_amounts_minor)
                THEN t.day_amounts_minor[d.day] + t.day_tolerance_minor - COALESCE(w.expected, 1)
            ELSE 9223372036854775807
        END AS most_credited,
        t.target_minor, t.day_amounts_minor, t.day_tolerance_minor, t.smallest_minor, t.largest_minor,
        t.step_minor, t.fixed_minor, t.least_steps
    FROM unnest($3::bigint[]) WITH ORDINALITY AS w (expected, number)
    CROSS JOIN (
        SELECT p.plan_id AS plan_key, p.*
        FROM plans p
        WHERE p.pool_id = $1 AND ($6::text IS NULL OR p.plan_id = $6)
        UNION ALL
        SELECT '' AS plan_key, n.*
        FROM (VALUES (1)) one
        LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = $6
        WHERE $6::text IS NULL OR n.plan_id IS NOT NULL
    ) t
    -- An array: Postgres expects it to have few elements, and a series to have a thousand.
    CROSS JOIN LATERAL unnest(ARRAY(
        SELECT generate_series(1, CASE
            WHEN t.plan_key = '' THEN 1
            ELSE GREATEST(t.days_ever, cardinality(t.day_amounts_minor))
        END)
    )) AS d (day)
    -- A plan that never takes the amount is not scanned.
    WHERE (w.expected >= t.smallest_minor AND w.expected <= t.largest_minor) IS NOT FALSE
      AND (w.expected % t.step_minor = 0) IS NOT FALSE
      AND (w.expected = ANY (t.fixed_minor)) IS NOT FALSE
      AND EXISTS (SELECT FROM pools o WHERE o.pool_id = $1 AND NOT o.paused AND NOT o.draining)
),
-- Accounts that the index below does not have in order: the one that is named; else those whose time
-- has come and that nobody has promoted yet.
separate AS MATERIALIZED (
    SELECT a.*
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.account_id = $5
      AND (a.usable_at <= now() OR a.usable_at IS NULL)
    UNION ALL
    (
        SELECT a.*
        FROM accounts a
        WHERE a.pool_id = $1
          AND a.parked
          AND a.usable_at <= now()
          AND $5::text IS NULL
          AND ($6::text IS NULL OR a.plan_key IN ($6, ''))
          AND ($7::text IS NULL OR a.country_code = $7)
          AND ($8::text IS NULL OR a.country_code IS NULL OR a.country_code = $8)
          AND a.labels @> $10::jsonb
          AND a.account_id <> ALL ($11::text[])
        ORDER BY a.usable_at
        LIMIT 1000
    )
),
candidate AS MATERIALIZED (
    SELECT k.number, k.has_plan, k.target_minor, c.*
    FROM kind k
    CROSS JOIN LATERAL (
        -- In this order, so that no WAITING one is read when enough are PROCESSING.
        SELECT d.*
        FROM unnest(ARRAY['PROCESSING', 'WAITING']) WITH ORDINALITY AS s (status, rank)
        CROSS JOIN LATERAL (
            SELECT a.*
            FROM accounts a
            WHERE a.pool_id = $1
              AND a.plan_key = k.plan_key
              AND a.status = s.status
              AND a.status IN ('PROCESSING', 'WAITING')
              AND a.login_status = 'ACTIVE'
              AND NOT a.paused
              AND NOT a.draining
              AND NOT a.parked
              AND a.plan_day = k.day
              AND -a.fullness_minor >= k.first
              AND a.day_credited_minor <= k.most_credited
              AND a.idle_since <= now()
              AND $5::text IS NULL
              AND ($7::text IS NULL OR a.country_code = $7)
              AND ($8::text IS NULL OR a.country_code IS NULL OR a.country_code = $8)
              AND a.labels @> $10::jsonb
              AND a.account_id <> ALL ($11::text[])
              AND (k.target_minor IS NULL OR plan_misfit(
                  k.expected, a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
                  k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
              ) IS NULL)
              AND ($9::bigint IS NULL OR k.target_minor IS NULL OR $9 <= plan_room(
                  a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
              ))
            ORDER BY -a.fullness_minor, a.idle_since, a.account_id
            LIMIT $4
        ) d
        ORDER BY s.rank
        LIMIT $4
    ) c
    UNION ALL
    SELECT
        k.number, k.has_plan, k.target_minor, a.*
    FROM separate a
    JOIN kind k ON k.plan_key = a.plan_key AND k.day = a.plan_day
    WHERE a.status IN ('PROCESSING', 'WAITING')
      AND a.login_status = 'ACTIVE'
      AND NOT a.paused
      AND NOT a.draining
      AND a.idle_since <= now()
      AND ($7::text IS NULL OR a.country_code = $7)
      AND ($8::text IS NULL OR a.country_code IS NULL OR a.country_code = $8)
      AND a.labels @> $10::jsonb
      AND a.account_id <> ALL ($11::text[])
      AND (k.target_minor IS NULL OR plan_misfit(
          k.expected, a.balance_minor, a.plan_day, a.day_credited_minor,
          k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
          k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
      ) IS NULL)
      AND ($9::bigint IS NULL OR k.target_minor IS NULL OR $9 <= plan_room(
          a.balance_minor, a.plan_day, a.day_credited_minor,
          k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
      ))
),
-- The best for each amount, whatever their plans: more than these nobody can get.
best AS MATERIALIZED (
    SELECT b.*
    FROM (
        SELECT
            c.*,
            (c.has_plan OR $6::text IS NULL) AS as_asked,
            CASE WHEN c.has_plan THEN c.target_minor - c.balance_minor END AS headroom,
            row_number() OVER (
                PARTITION BY c.number
                ORDER BY
                    (c.has_plan OR $6::text IS NULL) DESC, c.status,
                    CASE WHEN c.has_plan THEN c.target_minor - c.balance_minor END NULLS LAST,
                    c.idle_since, c.account_id
            ) AS rank
        FROM candidate c
    ) b
    WHERE b.rank <= $4
),
-- LIMIT: there is one at the most, and each is read by itself, however few are locked when the plan is made.
held AS MATERIALIZED (
    SELECT h.*
    FROM unnest($2::text[]) AS w (request_id)
    CROSS JOIN LATERAL (
        SELECT a.* FROM accounts a WHERE a.pool_id = $1 AND a.lease_request_id = w.request_id LIMIT 1
    ) h
)
SELECT
    x.number::int AS "group_number!",
    NULL::text AS "scan_plan_key?",
    NULL::bigint AS "scan_first?",
    x.account_id AS "account_id!",
    x.status AS "status!",
    x.login_status AS "login_status!",
    x.plan_id AS "plan_id?",
    x.country_code AS "country_code?",
    x.balance_minor AS "balance_minor!",
    x.labels AS "labels!",
    x.plan_day AS "plan_day!",
    x.day_credited_minor AS "day_credited_minor!",
    x.reserved_minor AS "reserved_minor?",
    x.day_due_at AS "day_due_at?",
    x.cooldown_until AS "cooldown_until?",
    x.hold_until AS "hold_until?",
    x.hold_cause AS "hold_cause?",
    x.hold_count AS "hold_count!",
    x.paused AS "paused!",
    x.draining AS "draining!",
    x.fencing_token AS "fencing_token!",
    x.resume_status AS "resume_status?",
    x.holder AS "holder?",
    x.lease_request_id AS "lease_request_id?",
    x.lease_acquired_at AS "lease_acquired_at?",
    x.lease_expires_at AS "lease_expires_at?",
    x.lease_end AS "lease_end?",
    x.bound_by_lease AS "bound_by_lease!",
    x.release_requested AS "release_requested!",
    x.open_redemption_id AS "open_redemption_id?",
    x.idle_since AS "idle_since!",
    x.version AS "version!",
    x.change_id AS "change_id!",
    x.created_at AS "created_at!",
    x.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM (
    SELECT
        0::bigint AS number, 0::bigint AS rank,
        h.account_id, h.status, h.login_status, h.plan_id, h.country_code, h.balance_minor, h.labels,
        h.plan_day, h.day_credited_minor, h.reserved_minor, h.day_due_at, h.cooldown_until, h.hold_until,
        h.hold_cause, h.hold_count, h.paused, h.draining, h.fencing_token, h.resume_status, h.holder,
        h.lease_request_id, h.lease_acquired_at, h.lease_expires_at, h.lease_end, h.bound_by_lease,
        h.release_requested, h.open_redemption_id, h.idle_since, h.version, h.change_id, h.created_at,
        h.updated_at
    FROM held h
    UNION ALL
    SELECT
        b.number, b.rank,
        b.account_id, b.status, b.login_status, b.plan_id, b.country_code, b.balance_minor, b.labels,
        b.plan_day, b.day_credited_minor, b.reserved_minor, b.day_due_at, b.cooldown_until, b.hold_until,
        b.hold_cause, b.hold_count, b.paused, b.draining, b.fencing_token, b.resume_status, b.holder,
        b.lease_request_id, b.lease_acquired_at, b.lease_expires_at, b.lease_end, b.bound_by_lease,
        b.release_requested, b.open_redemption_id, b.idle_since, b.version, b.change_id, b.created_at,
        b.updated_at
    FROM best b
) x
ORDER BY x.number, x.rank
