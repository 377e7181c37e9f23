-- Credit late, shape (a): the provider credited a redemption that was recorded as FAILED, by a person's
-- word or another mistake. Facts are not fenced: it becomes SUCCEEDED, and its account gets what was
-- really credited, whoever has the account now. Of the account nothing else
-- changes, but for what was credited on its day.
-- $1 pool_id, $2 redemption id, $3 the amount in minor units, $4 its currency, $5 provider ref,
-- $6 calls made since the last record, $7 who brings the evidence.
-- No row: it is not FAILED, or not any more. A unique violation: its code was redeemed again since.
WITH locked AS MATERIALIZED (
    SELECT a.account_id, r.redemption_id
    FROM redemptions r
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = r.account_id
    WHERE r.pool_id = $1
      AND a.pool_id = $1
      AND r.redemption_id = $2
      AND r.state = 'FAILED'
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a, r
),
overturned AS (
    UPDATE redemptions r
    SET state = 'SUCCEEDED',
        amount_minor = $3,
        amount_currency = $4,
        provider_ref = $5,
        last_answer = concat('recorded as FAILED before: ', r.failure_reason),
        failure_reason = NULL,
        failure_message = NULL,
        code_spent = NULL,
        attempts = r.attempts + $6,
        updated_at = now(),
        finished_at = now()
    FROM locked l
    WHERE r.pool_id = $1
      AND r.redemption_id = l.redemption_id
      AND r.state = 'FAILED'
    RETURNING r.account_id, r.redemption_id, r.amount_minor, r.plan_id, r.plan_day
),
credited AS (
    UPDATE accounts a
    SET balance_minor = a.balance_minor + o.amount_minor,
        -- It belongs to the day on which it was begun, and may be long past, or be another plan's.
        day_credited_minor = a.day_credited_minor
            + CASE WHEN a.plan_id = o.plan_id AND a.plan_day = o.plan_day THEN o.amount_minor ELSE 0 END,
        change_actor = $7,
        change_reason = 'credited_late'
    FROM overturned o
    WHERE a.pool_id = $1 AND a.account_id = o.account_id
    RETURNING a.account_id
)
SELECT o.redemption_id AS "redemption_id!"
FROM overturned o
JOIN credited c ON c.account_id = o.account_id
