-- What acquire.sql would make of each of the pool's accounts, and how many there are of each verdict:
-- 'fits', or the first cause for which it would be passed over. Changes nothing.
-- $1 pool_id; the selector, null where it does not say: $2 account_id, $3 plan_id, $4 country_code,
-- $5 the card's country, $6 min_headroom in minor units; $7 labels; $8 account ids that are not wanted,
-- $9 the amount expected (null: not given); $10 how many accounts to tell: those that would be picked come
-- first, in the order of the choice; $11 accounts that are remembered as unwritable.
-- One row for each account told; for a verdict without any account to tell, one without an account.
WITH considered AS MATERIALIZED (
    SELECT
        a.account_id,
        CASE
            WHEN NOT (
                ($2::text IS NULL OR a.account_id = $2)
                AND ($3::text IS NULL OR a.plan_id = $3 OR a.plan_id IS NULL)
                AND ($4::text IS NULL OR COALESCE(a.country_code = $4, false))
                AND ($5::text IS NULL OR a.country_code IS NULL OR a.country_code = $5)
                AND a.labels @> $7::jsonb
                AND a.account_id <> ALL ($8::text[])
            ) THEN 'not_selected'
            WHEN a.status = 'COMPLETED' THEN 'completed'
            WHEN a.login_status <> 'ACTIVE' THEN 'inactive'
            WHEN a.paused THEN 'paused'
            WHEN a.draining THEN 'draining'
            WHEN a.account_id = ANY ($11::text[]) THEN 'unwritable'
            WHEN p.target_minor - a.balance_minor < $6 THEN 'too_full'
            WHEN m.misfit IS NOT NULL THEN m.misfit
            WHEN m.room < $6 THEN 'day_full'
            WHEN a.hold_until > t.now THEN 'on_hold'
            WHEN a.day_due_at > t.now THEN 'next_day'
            WHEN a.cooldown_until > t.now THEN 'cooling_down'
            WHEN a.status = 'LOCKING' THEN 'locked'
            ELSE 'fits'
        END AS verdict,
        a.plan_id IS NOT NULL OR $3::text IS NULL AS as_asked,
        a.status,
        CASE WHEN a.plan_id IS NOT NULL THEN p.target_minor - a.balance_minor END AS rank_headroom,
        p.target_minor - a.balance_minor AS headroom_minor,
        m.room AS day_headroom_minor,
        a.idle_since
    FROM accounts a
    CROSS JOIN (SELECT now() AS now) t
    LEFT JOIN plans p ON p.pool_id = $1 AND p.plan_id = COALESCE(a.plan_id, $3::text)
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN p.plan_id IS NOT NULL THEN plan_misfit(
                $9::bigint, a.balance_minor, a.plan_day, a.day_credited_minor,
                p.target_minor, p.day_amounts_minor, p.day_tolerance_minor,
                p.smallest_minor, p.largest_minor, p.step_minor, p.fixed_minor, p.least_steps
            ) END AS misfit,
            plan_room(
                a.balance_minor, a.plan_day, a.day_credited_minor,
                p.target_minor, p.day_amounts_minor, p.day_tolerance_minor
            ) AS room
    ) m
    WHERE a.pool_id = $1
),
counted AS (
    SELECT c.verdict, count(*) AS accounts FROM considered c GROUP BY c.verdict
),
told AS (
    SELECT
        c.*,
        row_number() OVER (
            ORDER BY
                c.verdict = 'fits' DESC,
                CASE WHEN c.verdict <> 'fits' THEN c.verdict END,
                c.as_asked DESC, c.status, c.rank_headroom NULLS LAST, c.idle_since, c.account_id
        ) AS rank
    FROM considered c
    WHERE $10::bigint > 0
    ORDER BY rank
    LIMIT $10::bigint
)
SELECT
    k.verdict AS "verdict!",
    k.accounts AS "accounts!",
    d.account_id AS "account_id?",
    d.headroom_minor AS "headroom_minor?",
    d.day_headroom_minor AS "day_headroom_minor?"
FROM counted k
LEFT JOIN told d ON d.verdict = k.verdict
ORDER BY d.rank NULLS LAST, k.verdict
