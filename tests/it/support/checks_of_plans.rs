//! Checks of what never happens to plans and their accounts, as far as the database can tell. Of accounts
//! that a person changed it often cannot.

/// A name, and a statement that finds each broken case as text.
pub(super) const OF_PLANS: [(&str, &str); 8] = [
    (
        "headroom is held under a lease alone",
        "SELECT account_id FROM accounts WHERE reserved_minor IS NOT NULL AND status <> 'LOCKING'",
    ),
    (
        "what an open redemption expects is held",
        "SELECT format('%s holds %s for %s', a.account_id, a.reserved_minor, r.expected_minor)
         FROM accounts a
         JOIN redemptions r
             ON r.pool_id = a.pool_id AND r.redemption_id = a.open_redemption_id
         WHERE r.expected_minor IS NOT NULL AND a.reserved_minor IS DISTINCT FROM r.expected_minor",
    ),
    (
        "what was credited on a day is what its redemptions brought",
        // A late credit may have come under a plan that its account has left since.
        "SELECT format('%s on day %s: %s, of %s', account_id, plan_day, day_credited_minor, brought)
         FROM (
             SELECT a.*,
                 (SELECT COALESCE(sum(r.amount_minor), 0) FROM redemptions r
                  WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id
                    AND r.state = 'SUCCEEDED' AND r.reversed_at IS NULL
                    AND r.plan_day = a.plan_day) AS brought,
                 EXISTS (SELECT FROM account_events e
                  WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                    AND e.reason = 'credited_late') AS late
             FROM accounts a
             WHERE a.plan_id IS NOT NULL
               AND NOT EXISTS (SELECT FROM account_events e
                   WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                     AND e.reason IN ('updated', 'changed'))
         ) a
         WHERE day_credited_minor > brought OR (NOT late AND day_credited_minor < brought)",
    ),
    (
        "the day of a plan only rises",
        "SELECT format('%s: redemption %s on day %s', a.account_id, r.redemption_id, r.plan_day)
         FROM accounts a
         JOIN redemptions r ON r.pool_id = a.pool_id AND r.account_id = a.account_id
         WHERE a.plan_id IS NOT NULL AND r.plan_day > a.plan_day
           AND NOT EXISTS (SELECT FROM account_events e
               WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                 AND e.reason IN ('updated', 'changed'))",
    ),
    (
        "an account without a plan has no days",
        "SELECT account_id FROM accounts
         WHERE plan_id IS NULL
           AND (plan_day <> 1 OR day_credited_minor <> 0 OR day_due_at IS NOT NULL)",
    ),
    (
        "a lease alone binds an account for a while",
        "SELECT account_id FROM accounts
         WHERE bound_by_lease AND (status <> 'LOCKING' OR plan_id IS NULL)",
    ),
    (
        "a hold has a cause and its failures",
        "SELECT account_id FROM accounts a
         WHERE ((hold_until IS NULL) <> (hold_cause IS NULL)
             OR (hold_until IS NULL) <> (hold_count = 0))
           AND NOT EXISTS (SELECT FROM account_events e
               WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                 AND e.reason = 'changed')",
    ),
    (
        // Where each card was worth what was expected, and neither plan nor account was changed.
        "no plan and no day of one is overfilled",
        "WITH told AS (
             SELECT a.pool_id, a.account_id, a.balance_minor, first.balance_minor AS began_with, n.target_minor,
                 n.day_amounts_minor, n.day_tolerance_minor
             FROM accounts a
             JOIN account_events first
                 ON first.pool_id = a.pool_id AND first.account_id = a.account_id AND first.version = 1
             JOIN plans n
                 ON n.pool_id = a.pool_id AND n.plan_id = a.plan_id AND n.updated_at = n.created_at
             WHERE NOT EXISTS (SELECT FROM account_events e
                   WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                     AND e.reason IN ('updated', 'changed', 'credited_late', 'reversed', 'balance_corrected'))
               AND NOT EXISTS (SELECT FROM redemptions r
                   WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id
                     AND r.state = 'SUCCEEDED' AND r.expected_minor IS DISTINCT FROM r.amount_minor)
         )
         SELECT format('%s has %s of %s', account_id, balance_minor, target_minor) FROM told
         WHERE balance_minor > GREATEST(target_minor, began_with)
         UNION ALL
         SELECT format('%s has %s on day %s', t.account_id, sum(r.amount_minor), r.plan_day)
         FROM told t
         JOIN redemptions r
             ON r.pool_id = t.pool_id AND r.account_id = t.account_id AND r.state = 'SUCCEEDED'
         WHERE r.plan_day < cardinality(t.day_amounts_minor)
         GROUP BY t.account_id, r.plan_day, t.day_amounts_minor, t.day_tolerance_minor
         HAVING sum(r.amount_minor) > t.day_amounts_minor[r.plan_day] + t.day_tolerance_minor",
    ),
];
