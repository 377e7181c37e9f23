-- Acquire, shape (a): leases on free accounts that a selector allows. As acquire.sql, which is the
-- same without a selector; every request of one call has the same one.
-- $1 pool_id; one element for each request, in the order of arrival: $2 request ids, $3 holders,
-- $4 lease durations; $5 how many that is.
-- The selector, null where it does not say: $6 account_id, $7 plan_id, $8 country_code,
-- $9 min_headroom in minor units; $10 labels, all of which an account must carry; $11 account ids
-- that are not wanted; $12 a plan that accounts without one are bound to, and only those are picked;
-- $13 the card's country, which an account must have where its own is known.
-- Who names a plan asks twice: for accounts of the plan, and then for accounts to bind to it. Each
-- walks an index in its order.
WITH wanted AS MATERIALIZED (
    SELECT w.request_id, w.holder, w.ttl, w.place
    FROM unnest($2::text[], $3::text[], $4::interval[])
        WITH ORDINALITY AS w (request_id, holder, ttl, place)
),
-- Requests that have their lease already: a retry gets it again. Whether it still lives is for the
-- caller to see.
held AS MATERIALIZED (
    SELECT a.*, w.request_id
    FROM wanted w
    JOIN accounts a ON a.pool_id = $1 AND a.lease_request_id = w.request_id
    WHERE a.pool_id = $1 AND a.status = 'LOCKING'
),
-- The rest, in the order of arrival.
waiting AS MATERIALIZED (
    SELECT w.request_id, w.holder, w.ttl, row_number() OVER (ORDER BY w.place) AS turn
    FROM wanted w
    WHERE NOT EXISTS (SELECT FROM held h WHERE h.request_id = w.request_id)
),
-- Headroom is what the account's plan, or the one that it would be bound to, still wants.
free AS MATERIALIZED (
    SELECT a.account_id, a.status, a.idle_since
    FROM accounts a
    LEFT JOIN plans p ON p.pool_id = $1 AND p.plan_id = COALESCE(a.plan_id, $12::text)
    WHERE a.pool_id = $1
      AND a.status IN ('PROCESSING', 'WAITING')
      AND a.login_status = 'ACTIVE'
      AND a.idle_since <= now()
      AND ($6::text IS NULL OR a.account_id = $6)
      AND ($7::text IS NULL OR a.plan_id = $7)
      AND ($8::text IS NULL OR a.country_code = $8)
      AND ($13::text IS NULL OR a.country_code IS NULL OR a.country_code = $13)
      AND (p.target_minor IS NULL OR a.balance_minor < p.target_minor)
      AND ($9::bigint IS NULL OR p.target_minor IS NULL OR p.target_minor - a.balance_minor >= $9)
      AND a.labels @> $10::jsonb
      AND a.account_id <> ALL ($11::text[])
      AND ($12::text IS NULL OR a.plan_id IS NULL)
      AND ($12::text IS NULL OR EXISTS (
          SELECT FROM plans n WHERE n.pool_id = $1 AND n.plan_id = $12
      ))
      AND EXISTS (SELECT FROM pools o WHERE o.pool_id = $1 AND NOT o.paused)
    ORDER BY a.status, a.idle_since, a.account_id
    LIMIT $5
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
chosen AS MATERIALIZED (
    SELECT f.account_id, row_number() OVER (ORDER BY f.status, f.idle_since, f.account_id) AS turn
    FROM free f
),
leased AS (
    UPDATE accounts a
    SET status = 'LOCKING',
        resume_status = a.status,
        fencing_token = a.fencing_token + 1,
        holder = w.holder,
        lease_request_id = w.request_id,
        lease_acquired_at = now(),
        lease_expires_at = ((now() AT TIME ZONE 'utc') + w.ttl) AT TIME ZONE 'utc',
        plan_id = COALESCE(a.plan_id, $12::text),
        bound_by_lease = $12::text IS NOT NULL,
        lease_end = NULL,
        change_actor = w.holder,
        change_reason = 'acquired'
    FROM chosen c
    JOIN waiting w ON w.turn = c.turn
    WHERE a.pool_id = $1
      AND a.account_id = c.account_id
      AND a.status IN ('PROCESSING', 'WAITING')
      AND a.login_status = 'ACTIVE'
      AND a.idle_since <= now()
    RETURNING a.*, w.request_id
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
    x.account_id AS "account_id!",
    x.status AS "status!",
    x.login_status AS "login_status!",
    x.plan_id AS "plan_id?",
    x.country_code AS "country_code?",
    x.balance_minor AS "balance_minor!",
    x.labels AS "labels!",
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
