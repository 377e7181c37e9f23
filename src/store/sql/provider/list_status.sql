-- Of no pool: what holds back the calls to providers: that one fails, a pause, a brake. A brake is in force where all its
-- places are kept by what has failed, or is overdue, so that none is under way.
-- $1 the providers, $2 how many places the brake of each has; 0: it has none. A row for each, in their order.
SELECT
    n.provider_id AS "provider_id!",
    COALESCE(l.failing, false) AS "failing!",
    NULLIF(l.failing_since, 'infinity') AS "failing_since?",
    COALESCE(l.failed_tries, 0) AS "failed_tries!",
    CASE WHEN l.failing THEN l.retry_at END AS "next_try_at?",
    NULLIF(greatest(l.held_until, now()), now()) AS "paused_until?",
    CASE WHEN b.all_kept THEN b.free_at END AS "braked_until?",
    now() AS "db_now!"
FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS n (provider_id, places, place)
LEFT JOIN provider_limits l ON l.provider_id = n.provider_id
LEFT JOIN LATERAL (
    SELECT
        bool_and(s.free_at > now() AND s.answer_by <= now()) AS all_kept,
        min(s.free_at) AS free_at
    FROM provider_slots s
    WHERE s.provider_id = n.provider_id AND s.kind = 'brake' AND s.slot < n.places
) b ON true
ORDER BY n.place
