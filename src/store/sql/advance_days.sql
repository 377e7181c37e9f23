-- Advance, shape (a): free accounts whose day has nothing left to take, because their plan was changed,
-- because of a late credit, or from its beginning, go on to their next day. What a redemption ends,
-- settle.sql ends.
-- $1 pool_id, $2 plan_id, $3 how many at the most, $4 who looks, $5 after which account; $6 account ids,
-- $7 whether only these are meant, or all but these. Answers with how many there were, and the last of them.
WITH over AS MATERIALIZED (
    SELECT
        a.account_id,
        ((now() AT TIME ZONE 'utc') + n.day_interval) AT TIME ZONE 'utc' AS next_day_at
    FROM accounts a
    JOIN plans n ON n.pool_id = $1 AND n.plan_id = a.plan_id
    WHERE a.pool_id = $1
      AND a.plan_id = $2
      AND a.account_id > $5
      AND (a.account_id = ANY ($6::text[])) = $7::boolean
      AND n.pool_id = $1
      AND a.status IN ('PROCESSING', 'WAITING')
      AND a.plan_day < cardinality(n.day_amounts_minor)
      -- One day, one interval: a day that is not due yet has not begun.
      AND (a.day_due_at IS NULL OR a.day_due_at <= now())
      AND a.balance_minor < n.target_minor
      AND (
          a.day_credited_minor >= n.day_amounts_minor[a.plan_day]
          OR (
              NOT plan_wants(
                  a.balance_minor, a.plan_day, a.day_credited_minor,
                  n.target_minor, n.day_amounts_minor, n.day_tolerance_minor,
                  n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.least_steps
              )
              -- Not where no later day could fill it either.
              AND plan_fills(
                  n.target_minor - a.balance_minor,
                  n.smallest_minor, n.largest_minor, n.step_minor, n.least_steps
              )
          )
      )
    ORDER BY a.account_id
    LIMIT $3
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
advanced AS (
    UPDATE accounts a
    SET status = 'WAITING',
        plan_day = a.plan_day + 1,
        day_credited_minor = 0,
        day_due_at = o.next_day_at,
        change_actor = $4,
        change_reason = 'day_ended'
    FROM over o
    WHERE a.pool_id = $1
      AND a.account_id = o.account_id
      AND (a.day_due_at IS NULL OR a.day_due_at <= now())
      AND a.status IN ('PROCESSING', 'WAITING')
    RETURNING a.account_id
)
SELECT count(*) AS "advanced!", max(d.account_id) AS "last?" FROM advanced d
