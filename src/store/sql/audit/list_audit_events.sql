-- The audit trail before the event $1, newest first, at most $2 events and $3 bytes; of one pool ($4),
-- of one principal ($5), of one subject ($6), from $7 to before $8, of pools whose id begins as one of $10 or is one
-- of $11, by one action ($12), where they are not null. No event is before $9: a range of the index, so that what is older is not read. "more" says of an event that another was found after it.
WITH found AS (
    SELECT
        e.*,
        -- 256: what the columns have that are not named here.
        octet_length(concat(e.principal, e.peer, e.action, e.pool_id, e.subject, e.before, e.after, e.reason)) + 256
            AS bytes
    FROM audit_events e
    WHERE e.event_id < $1
      AND e.event_id >= $9
      AND ($4::text IS NULL OR e.pool_id = $4)
      AND (
          $10::text[] IS NULL
          OR e.pool_id = ANY ($11::text[])
          OR EXISTS (SELECT FROM unnest($10::text[]) AS s (start) WHERE starts_with(e.pool_id, s.start))
      )
      AND ($5::text IS NULL OR e.principal = $5)
      AND ($6::text IS NULL OR e.subject = $6)
      AND ($12::text IS NULL OR e.action = $12)
      AND ($7::timestamptz IS NULL OR e.created_at >= $7)
      AND ($8::timestamptz IS NULL OR e.created_at < $8)
    ORDER BY e.event_id DESC
    LIMIT $2
),
measured AS (
    SELECT
        f.*,
        sum(f.bytes) OVER page - f.bytes AS bytes_before,
        lead(true, 1, false) OVER page AS more
    FROM found f
    WINDOW page AS (ORDER BY f.event_id DESC)
)
SELECT
    m.event_id, m.created_at, m.principal, m.peer, m.action, m.pool_id, m.subject,
    COALESCE(m.before::text, '') AS "before!", COALESCE(m.after::text, '') AS "after!", m.reason, m.more AS "more!"
FROM measured m
WHERE m.bytes_before < $3::bigint
ORDER BY m.event_id DESC
