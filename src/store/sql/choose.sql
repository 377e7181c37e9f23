-- Choose: free accounts that a selector allows and whose plans want a card of the expected amount, the best first,
-- for requests that all ask for the same. Also the leases that these requests have already. Changes nothing:
-- domain/account.rs decides about each, and apply.sql leases it where it is still as it was.
-- $1 pool_id; $2 request ids, $3 the amount that all expect (null: not given), $4 how many accounts at the most.
-- The selector, null where it does not say: $5 plan_id (accounts of this plan first, then ones without a
-- plan, which are bound to it), $6 country_code, $7 the card's country, or unknown, $8 min_headroom in
-- minor units; $9 labels, and an account must carry them all; $10 account ids that are not wanted.
-- Parts of the index to scan, those of one plan ('': none), status and day in their order: $11 plan keys,
-- $12 statuses, $13 days; from $14 (minus a balance: the fullest come first) and $15 (since when it was idle)
-- to $16 and $17 (null: the end). What has none here is scanned whole.
-- Nothing where the pool is paused or draining. Not here: an account that is named, and those whose time has come
-- and that nobody has promoted yet. choose_any.sql has these.
WITH kind AS MATERIALIZED (
    -- What can be picked, by plan and day: accounts of the plans, and accounts of none (''). The latter have the
    -- terms of the asked plan, if one is asked for, and are on its first day.
    SELECT
        t.plan_key, t.plan_key <> '' AS has_plan, d.day,
        -- The fullest that may fit: where the scan of the index begins.
        CASE WHEN t.plan_key = '' THEN 0 ELSE COALESCE($3::bigint, 1) - t.target_minor END AS first,
        -- And the most that may have been credited on the day. The last one has no limit of its own.
        CASE
            WHEN d.day < cardinality(t.day_amounts_minor)
                THEN t.day_amounts_minor[d.day] + t.day_tolerance_minor - COALESCE($3, 1)
            ELSE 9223372036854775807
        END AS most_credited,
        t.target_minor, t.day_amounts_minor, t.day_tolerance_minor, t.smallest_minor, t.largest_minor,
        t.step_minor, t.fixed_minor, t.least_steps
    FROM (
        SELECT p.plan_id AS plan_key, p.*
        FROM plans p
        WHERE p.pool_id = $1 AND ($5::text IS NULL OR p.plan_id = $5)
        UNION ALL
        SELECT '' AS plan_key, n.*
        FROM (VALUES (1)) one
        LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = $5
        WHERE $5::text IS NULL OR n.plan_id IS NOT NULL
    ) t
    -- An array: Postgres expects it to have few elements, and a series to have a thousand.
    CROSS JOIN LATERAL unnest(ARRAY(
        SELECT generate_series(1, CASE
            WHEN t.plan_key = '' THEN 1
            ELSE GREATEST(t.days_ever, cardinality(t.day_amounts_minor))
        END)
    )) AS d (day)
    -- A plan that never takes the amount is not scanned.
    WHERE ($3 >= t.smallest_minor AND $3 <= t.largest_minor) IS NOT FALSE
      AND ($3 % t.step_minor = 0) IS NOT FALSE
      AND ($3 = ANY (t.fixed_minor)) IS NOT FALSE
      AND EXISTS (SELECT FROM pools o WHERE o.pool_id = $1 AND NOT o.paused AND NOT o.draining)
),
-- The best, whatever their plans: more than these nobody can get.
best AS MATERIALIZED (
    SELECT
        c.*,
        k.plan_key AS scan_plan_key,
        row_number() OVER (
            ORDER BY
                (k.has_plan OR $5::text IS NULL) DESC, c.status,
                CASE WHEN k.has_plan THEN k.target_minor - c.balance_minor END NULLS LAST,
                c.idle_since, c.account_id
        ) AS rank
    FROM kind k
    CROSS JOIN LATERAL (
        -- In this order, so that no WAITING one is read when enough are PROCESSING, and no part before the one in
        -- front of it. Loops over arrays keep it, and connections allow no other joins.
        SELECT d.*
        FROM unnest(ARRAY['PROCESSING', 'WAITING']) WITH ORDINALITY AS s (status, rank)
        LEFT JOIN unnest(
            $11::text[], $12::text[], $13::int[], $14::bigint[], $15::timestamptz[], $16::bigint[], $17::timestamptz[]
        ) AS h (plan_key, status, day, first, since, last, until)
            ON h.plan_key = k.plan_key AND h.status = s.status AND h.day = k.day AND h.first >= k.first
        CROSS JOIN LATERAL (
            SELECT a.*, -a.fullness_minor AS scan_first
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
              AND (-a.fullness_minor, a.idle_since)
                  >= (COALESCE(h.first, k.first), COALESCE(h.since, '-infinity'))
              AND (-a.fullness_minor, a.idle_since)
                  <= (COALESCE(h.last, 9223372036854775807), COALESCE(h.until, 'infinity'))
              AND a.day_credited_minor <= k.most_credited
              AND a.idle_since <= now()
              AND ($6::text IS NULL OR a.country_code = $6)
              AND ($7::text IS NULL OR a.country_code IS NULL OR a.country_code = $7)
              AND a.labels @> $9::jsonb
              AND a.account_id <> ALL ($10::text[])
              AND (k.target_minor IS NULL OR plan_misfit(
                  $3, a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
                  k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
              ) IS NULL)
              AND ($8::bigint IS NULL OR k.target_minor IS NULL OR $8 <= plan_room(
                  a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
              ))
            ORDER BY -a.fullness_minor, a.idle_since, a.account_id
            LIMIT $4
        ) d
        ORDER BY s.rank
        LIMIT $4
    ) c
    ORDER BY rank
    LIMIT $4
),
-- LIMIT: there is one at the most, and each is read by itself, however few are locked when the plan is made.
held AS MATERIALIZED (
    SELECT h.*, NULL::bigint AS scan_first, NULL::text AS scan_plan_key, 0::bigint AS rank
    FROM unnest($2::text[]) AS w (request_id)
    CROSS JOIN LATERAL (
        SELECT a.* FROM accounts a WHERE a.pool_id = $1 AND a.lease_request_id = w.request_id LIMIT 1
    ) h
)
SELECT
    CASE WHEN x.rank = 0 THEN 0 ELSE 1 END AS "group_number!",
    x.scan_plan_key AS "scan_plan_key?",
    x.scan_first AS "scan_first?",
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
FROM (SELECT h.* FROM held h UNION ALL SELECT b.* FROM best b) x
ORDER BY x.rank
