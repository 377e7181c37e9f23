-- Acquire, shape (a): leases on free accounts that a selector allows and whose plans want a card of the
-- expected amount, for requests that all wish the same. THE choice: see plan_misfit for what fits.
-- $1 pool_id; one element for each request, in the order of their turns: $2 request ids, $3 holders,
-- $4 lease durations; $5 the amount that all expect (null: not known), $6 how many accounts to look at.
-- The selector, null where it does not say: $7 plan_id (accounts of this plan first, then ones without a
-- plan, which are bound to it), $8 country_code, $9 the card's country, or unknown, $10 min_headroom in
-- minor units; $11 labels, all of which an account must carry; $12 account ids that are not wanted.
-- Parts of the index to walk, those of one plan ('': none), status and day in their order: $13 plan keys,
-- $14 statuses, $15 days; from $16 (minus a balance: the fullest come first) and $17 (since when it was idle)
-- to $18 and $19 (null: the end). What has none here is walked whole.
-- Answers with the accounts that are now leased, each with its request, in the order of the choice. A
-- request without a row has its lease already, or found nothing that fits it, or the pool is paused or
-- draining: acquire_any.sql tells, which also knows the accounts that this does not look for: one that is
-- named, and those whose time has come and that nobody has unparked yet.
WITH kind AS MATERIALIZED (
    -- What can be picked, by plan and day: accounts of the plans, and accounts of none (''), which have
    -- the terms of the asked plan, if one is asked for, and are on its first day.
    SELECT
        t.plan_key, t.plan_key <> '' AS has_plan, d.day,
        -- The fullest that may fit: where the walk along the index begins.
        CASE WHEN t.plan_key = '' THEN 0 ELSE COALESCE($5::bigint, 1) - t.target_minor END AS first,
        -- And the most that may have been credited on the day. The last one has no limit of its own.
        CASE
            WHEN d.day < cardinality(t.day_amounts_minor)
                THEN t.day_amounts_minor[d.day] + t.day_tolerance_minor - COALESCE($5, 1)
            ELSE 9223372036854775807
        END AS most_credited,
        t.target_minor, t.day_amounts_minor, t.day_tolerance_minor, t.smallest_minor, t.largest_minor,
        t.step_minor, t.fixed_minor, t.least_steps
    FROM (
        SELECT p.plan_id AS plan_key, p.*
        FROM plans p
        WHERE p.pool_id = $1 AND ($7::text IS NULL OR p.plan_id = $7)
        UNION ALL
        SELECT '' AS plan_key, n.*
        FROM (VALUES (1)) one
        LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = $7
        WHERE $7::text IS NULL OR n.plan_id IS NOT NULL
    ) t
    -- An array, of which Postgres expects few elements: of a series it expects a thousand.
    CROSS JOIN LATERAL unnest(ARRAY(
        SELECT generate_series(1, CASE
            WHEN t.plan_key = '' THEN 1
            ELSE GREATEST(t.days_ever, cardinality(t.day_amounts_minor))
        END)
    )) AS d (day)
    -- A plan that never takes the amount is not walked.
    WHERE ($5 >= t.smallest_minor AND $5 <= t.largest_minor) IS NOT FALSE
      AND ($5 % t.step_minor = 0) IS NOT FALSE
      AND ($5 = ANY (t.fixed_minor)) IS NOT FALSE
      AND EXISTS (SELECT FROM pools o WHERE o.pool_id = $1 AND NOT o.paused AND NOT o.draining)
),
-- The best, whatever their plans: more than these nobody can get.
best AS MATERIALIZED (
    SELECT c.place, c.version, k.plan_key, c.first
    FROM kind k
    CROSS JOIN LATERAL (
        -- In this order, so that no WAITING one is looked at when enough are PROCESSING, and no part before
        -- the one in front of it: loops over arrays keep it, and connections allow no other joins.
        SELECT d.*
        FROM unnest(ARRAY['PROCESSING', 'WAITING']) WITH ORDINALITY AS s (status, place)
        LEFT JOIN unnest(
            $13::text[], $14::text[], $15::int[], $16::bigint[], $17::timestamptz[], $18::bigint[], $19::timestamptz[]
        ) AS h (plan_key, status, day, first, since, last, until)
            ON h.plan_key = k.plan_key AND h.status = s.status AND h.day = k.day AND h.first >= k.first
        CROSS JOIN LATERAL (
            SELECT
                a.ctid AS place, a.account_id, a.version, a.status, a.balance_minor, a.idle_since,
                -a.fullness_minor AS first
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
              AND ($8::text IS NULL OR a.country_code = $8)
              AND ($9::text IS NULL OR a.country_code IS NULL OR a.country_code = $9)
              AND a.labels @> $11::jsonb
              AND a.account_id <> ALL ($12::text[])
              AND (k.target_minor IS NULL OR plan_misfit(
                  $5, a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
                  k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
              ) IS NULL)
              AND ($10::bigint IS NULL OR k.target_minor IS NULL OR $10 <= plan_room(
                  a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
              ))
            ORDER BY -a.fullness_minor, a.idle_since, a.account_id
            LIMIT $6
        ) d
        ORDER BY s.place
        LIMIT $6
    ) c
    ORDER BY
        (k.has_plan OR $7::text IS NULL) DESC, c.status,
        CASE WHEN k.has_plan THEN k.target_minor - c.balance_minor END NULLS LAST,
        c.idle_since, c.account_id
    LIMIT $6
),
-- SKIP LOCKED: another server's statement is choosing those. The version: nothing has happened to it
-- since this statement looked, so that it still stands where it was found.
locked AS MATERIALIZED (
    SELECT b.place, b.version, b.plan_key, b.first
    FROM best b
    JOIN accounts a ON a.ctid = b.place
    WHERE a.pool_id = $1 AND a.version = b.version AND a.status IN ('PROCESSING', 'WAITING')
    LIMIT cardinality($2::text[])
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
-- Those who have their lease already take none. LIMIT: there is one at the most, and each is looked for by
-- itself, however few are locked when the plan is made.
waiting AS MATERIALIZED (
    SELECT w.request_id, w.holder, w.ttl, row_number() OVER (ORDER BY w.turn) AS turn
    FROM unnest($2::text[], $3::text[], $4::interval[]) WITH ORDINALITY AS w (request_id, holder, ttl, turn)
    WHERE (
        SELECT h.account_id FROM accounts h WHERE h.pool_id = $1 AND h.lease_request_id = w.request_id LIMIT 1
    ) IS NULL
),
chosen AS MATERIALIZED (
    SELECT l.place, l.version, l.plan_key, l.first, w.request_id, w.holder, w.ttl
    FROM (SELECT l.*, row_number() OVER () AS turn FROM locked l) l
    JOIN waiting w ON w.turn = l.turn
),
leased AS (
    UPDATE accounts a
    SET status = 'LOCKING',
        resume_status = a.status,
        fencing_token = a.fencing_token + 1,
        holder = c.holder,
        lease_request_id = c.request_id,
        lease_acquired_at = now(),
        lease_expires_at = ((now() AT TIME ZONE 'utc') + c.ttl) AT TIME ZONE 'utc',
        plan_id = COALESCE(a.plan_id, $7::text),
        bound_by_lease = a.plan_id IS NULL AND $7::text IS NOT NULL,
        reserved_minor = $5,
        lease_end = NULL,
        change_actor = c.holder,
        change_reason = 'acquired'
    FROM chosen c
    WHERE a.pool_id = $1
      AND a.ctid = c.place
      AND a.version = c.version
      AND a.status IN ('PROCESSING', 'WAITING')
    RETURNING a.*, c.request_id, c.plan_key AS walk_plan_key, c.first AS walk_first
)
SELECT
    x.request_id AS "request_id!",
    true AS "fresh!",
    x.resume_status AS "resume_status!",
    x.walk_plan_key AS "walk_plan_key?",
    x.walk_first AS "walk_first?",
    x.idle_since AS "walk_since?",
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
    x.usable_at AS "usable_at?",
    x.hold_until AS "hold_until?",
    x.hold_cause AS "hold_cause?",
    x.hold_count AS "hold_count!",
    x.paused AS "paused!",
    x.draining AS "draining!",
    x.fencing_token AS "fencing_token!",
    x.holder AS "holder?",
    x.lease_acquired_at AS "lease_acquired_at?",
    x.lease_expires_at AS "lease_expires_at?",
    x.release_requested AS "release_requested!",
    x.open_redemption_id AS "open_redemption_id?",
    x.created_at AS "created_at!",
    x.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM leased x
