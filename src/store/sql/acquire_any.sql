-- Acquire, shape (a), as acquire.sql does, for whatever that does not serve: requests of several amounts,
-- an account that is named, accounts whose time has come, and requests that have their lease already.
-- $1 pool_id; one element for each request, in the order of their turns: $2 request ids, $3 holders,
-- $4 lease durations, $5 amounts expected (null: not known); $6 how many accounts to look at for each
-- amount: as many as there are requests, and some more for those that others are choosing just now.
-- The selector, the same for all and null where it does not say: $7 account_id, $8 plan_id (accounts of
-- this plan first, then ones without a plan, which are bound to it), $9 country_code, $10 the card's
-- country, or unknown, $11 min_headroom in minor units; $12 labels, all of which an account must carry;
-- $13 account ids that are not wanted.
-- Answers with the accounts that are now leased, each with its request. A request without a row
-- found nothing that fits it, or the pool is paused or draining.
WITH wanted AS MATERIALIZED (
    SELECT w.request_id, w.holder, w.ttl, w.expected, w.place
    FROM unnest($2::text[], $3::text[], $4::interval[], $5::bigint[])
        WITH ORDINALITY AS w (request_id, holder, ttl, expected, place)
),
-- Requests that have their lease already: a retry gets it again. Whether it still lives is for the
-- caller to see. LIMIT: there is one at the most, and each is looked for by itself, however few are
-- locked when the plan is made.
held AS MATERIALIZED (
    SELECT h.*, w.request_id
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT a.*
        FROM accounts a
        WHERE a.pool_id = $1 AND a.lease_request_id = w.request_id
        LIMIT 1
    ) h
),
-- The rest, in their order. Those who expect the same amount have the same wish.
waiting AS MATERIALIZED (
    SELECT
        w.request_id, w.holder, w.ttl, w.expected,
        row_number() OVER (ORDER BY w.place) AS turn,
        dense_rank() OVER (ORDER BY w.expected)::int AS wish
    FROM wanted w
    WHERE NOT EXISTS (SELECT FROM held h WHERE h.request_id = w.request_id)
),
-- What can be picked, by plan and day: accounts of the plans, and accounts of none (''), which have the
-- terms of the asked plan, if one is asked for, and are on its first day.
kind AS MATERIALIZED (
    SELECT
        t.plan_key, t.plan_key <> '' AS has_plan, w.wish, w.expected,
        -- The fullest that may fit: where the walk along the index begins.
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
    FROM (SELECT DISTINCT x.wish, x.expected FROM waiting x) w
    CROSS JOIN (
        SELECT p.plan_id AS plan_key, p.*
        FROM plans p
        WHERE p.pool_id = $1 AND ($8::text IS NULL OR p.plan_id = $8)
        UNION ALL
        SELECT '' AS plan_key, n.*
        FROM (VALUES (1)) one
        LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = $8
        WHERE $8::text IS NULL OR n.plan_id IS NOT NULL
    ) t
    -- An array, of which Postgres expects few elements: of a series it expects a thousand.
    CROSS JOIN LATERAL unnest(ARRAY(
        SELECT generate_series(1, CASE
            WHEN t.plan_key = '' THEN 1
            ELSE GREATEST(t.days_ever, cardinality(t.day_amounts_minor))
        END)
    )) AS d (day)
    -- A plan that never takes the amount is not walked.
    WHERE (w.expected >= t.smallest_minor AND w.expected <= t.largest_minor) IS NOT FALSE
      AND (w.expected % t.step_minor = 0) IS NOT FALSE
      AND (w.expected = ANY (t.fixed_minor)) IS NOT FALSE
      AND EXISTS (SELECT FROM pools o WHERE o.pool_id = $1 AND NOT o.paused AND NOT o.draining)
),
-- Accounts that the index below does not have in order: the one that is named; else those whose time
-- has come and that nobody has unparked yet.
apart AS MATERIALIZED (
    SELECT a.*
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.account_id = $7
      AND (a.usable_at <= now() OR a.usable_at IS NULL)
    UNION ALL
    (
        SELECT a.*
        FROM accounts a
        WHERE a.pool_id = $1
          AND a.parked
          AND a.usable_at <= now()
          AND $7::text IS NULL
          AND ($8::text IS NULL OR a.plan_key IN ($8, ''))
          AND ($9::text IS NULL OR a.country_code = $9)
          AND ($10::text IS NULL OR a.country_code IS NULL OR a.country_code = $10)
          AND a.labels @> $12::jsonb
          AND a.account_id <> ALL ($13::text[])
        ORDER BY a.usable_at
        LIMIT 1000
    )
),
candidate AS MATERIALIZED (
    SELECT k.wish, k.has_plan, k.target_minor, c.*
    FROM kind k
    CROSS JOIN LATERAL (
        -- In this order, so that no WAITING one is looked at when enough are PROCESSING.
        SELECT d.*
        FROM unnest(ARRAY['PROCESSING', 'WAITING']) WITH ORDINALITY AS s (status, place)
        CROSS JOIN LATERAL (
            SELECT a.account_id, a.fencing_token, a.version, a.status, a.balance_minor, a.idle_since
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
              AND $7::text IS NULL
              AND ($9::text IS NULL OR a.country_code = $9)
              AND ($10::text IS NULL OR a.country_code IS NULL OR a.country_code = $10)
              AND a.labels @> $12::jsonb
              AND a.account_id <> ALL ($13::text[])
              AND (k.target_minor IS NULL OR plan_misfit(
                  k.expected, a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
                  k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
              ) IS NULL)
              AND ($11::bigint IS NULL OR k.target_minor IS NULL OR $11 <= plan_room(
                  a.balance_minor, a.plan_day, a.day_credited_minor,
                  k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
              ))
            ORDER BY -a.fullness_minor, a.idle_since, a.account_id
            LIMIT $6
        ) d
        ORDER BY s.place
        LIMIT $6
    ) c
    UNION ALL
    SELECT
        k.wish, k.has_plan, k.target_minor,
        a.account_id, a.fencing_token, a.version, a.status, a.balance_minor, a.idle_since
    FROM apart a
    JOIN kind k ON k.plan_key = a.plan_key AND k.day = a.plan_day
    WHERE a.status IN ('PROCESSING', 'WAITING')
      AND a.login_status = 'ACTIVE'
      AND NOT a.paused
      AND NOT a.draining
      AND a.idle_since <= now()
      AND ($9::text IS NULL OR a.country_code = $9)
      AND ($10::text IS NULL OR a.country_code IS NULL OR a.country_code = $10)
      AND a.labels @> $12::jsonb
      AND a.account_id <> ALL ($13::text[])
      AND (k.target_minor IS NULL OR plan_misfit(
          k.expected, a.balance_minor, a.plan_day, a.day_credited_minor,
          k.target_minor, k.day_amounts_minor, k.day_tolerance_minor,
          k.smallest_minor, k.largest_minor, k.step_minor, k.fixed_minor, k.least_steps
      ) IS NULL)
      AND ($11::bigint IS NULL OR k.target_minor IS NULL OR $11 <= plan_room(
          a.balance_minor, a.plan_day, a.day_credited_minor,
          k.target_minor, k.day_amounts_minor, k.day_tolerance_minor
      ))
),
-- The best for each wish, whatever their plans: more than these nobody can get.
best AS MATERIALIZED (
    SELECT b.*
    FROM (
        SELECT
            c.*,
            (c.has_plan OR $8::text IS NULL) AS as_asked,
            CASE WHEN c.has_plan THEN c.target_minor - c.balance_minor END AS headroom,
            row_number() OVER (
                PARTITION BY c.wish
                ORDER BY
                    (c.has_plan OR $8::text IS NULL) DESC, c.status,
                    CASE WHEN c.has_plan THEN c.target_minor - c.balance_minor END NULLS LAST,
                    c.idle_since, c.account_id
            ) AS rank
        FROM candidate c
    ) b
    WHERE b.rank <= $6
),
-- SKIP LOCKED: another server's statement is choosing those. The version: nothing has happened to it
-- since this statement looked. Where all wish the same, only as many as are needed are locked.
locked AS MATERIALIZED (
    SELECT b.wish, b.rank, b.account_id, b.fencing_token, b.version
    FROM best b
    JOIN accounts a
        ON a.pool_id = $1 AND a.account_id = b.account_id AND a.fencing_token = b.fencing_token
    WHERE a.pool_id = $1 AND a.version = b.version AND a.status IN ('PROCESSING', 'WAITING')
    ORDER BY b.rank
    LIMIT (SELECT CASE WHEN max(w.wish) = 1 THEN count(*) END FROM waiting w)
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
ranked AS MATERIALIZED (
    SELECT
        l.wish, l.account_id, l.fencing_token, l.version,
        dense_rank() OVER (ORDER BY l.account_id)::int AS number,
        row_number() OVER (ORDER BY l.wish, l.rank) AS place
    FROM locked l
),
-- Each in turn gets the first that fits it of those that are left.
chosen AS MATERIALIZED (
    SELECT w.request_id, w.holder, w.ttl, w.expected, r.account_id, r.fencing_token, r.version
    FROM unnest(first_come(
        (SELECT array_agg(x.wish ORDER BY x.turn) FROM waiting x),
        (SELECT array_agg(x.wish ORDER BY x.place) FROM ranked x),
        (SELECT array_agg(x.number ORDER BY x.place) FROM ranked x)
    )) WITH ORDINALITY AS g (place, turn)
    JOIN waiting w ON w.turn = g.turn
    JOIN ranked r ON r.place = g.place
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
        plan_id = COALESCE(a.plan_id, $8::text),
        bound_by_lease = a.plan_id IS NULL AND $8::text IS NOT NULL,
        reserved_minor = c.expected,
        lease_end = NULL,
        change_actor = c.holder,
        change_reason = 'acquired'
    FROM chosen c
    WHERE a.pool_id = $1
      AND a.account_id = c.account_id
      AND a.fencing_token = c.fencing_token
      AND a.version = c.version
      AND a.status IN ('PROCESSING', 'WAITING')
    RETURNING a.*, c.request_id
),
answer AS (
    SELECT l.*, true AS fresh FROM leased l
    UNION ALL
    SELECT h.*, false AS fresh FROM held h
)
SELECT
    x.request_id AS "request_id!",
    x.fresh AS "fresh!",
    x.resume_status AS "resume_status!",
    NULL::text AS "walk_plan_key?",
    NULL::bigint AS "walk_first?",
    NULL::timestamptz AS "walk_since?",
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
FROM answer x
