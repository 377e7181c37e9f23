-- Acquire, shape (a): leases on any free accounts of a pool, one for each request.
-- $1 pool_id; one element for each request, in the order of arrival: $2 request ids, $3 holders,
-- $4 lease durations; $5 how many that is.
-- Answers with the accounts that are now leased, each with its request. A request without a row
-- found nothing free, or the pool is paused.
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
-- SKIP LOCKED: another server's statement is choosing those. idle_since: no lease begins, by now(),
-- before the last one ended. Full: a plan's target may have been lowered since the last settlement.
free AS MATERIALIZED (
    SELECT a.account_id, a.status, a.idle_since
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.status IN ('PROCESSING', 'WAITING')
      AND a.login_status = 'ACTIVE'
      AND a.idle_since <= now()
      AND NOT EXISTS (
          SELECT FROM plans n
          WHERE n.pool_id = $1 AND n.plan_id = a.plan_id AND n.target_minor <= a.balance_minor
      )
      AND EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND NOT p.paused)
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
        bound_by_lease = false,
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
