-- Of no pool: makes a key the current one, and records who did. No row when it is current already.
-- $1 the key's id, $2 who makes it current, $3 from where, $4 the reason.
WITH old AS (
    SELECT i.current_key FROM installation i
),
used AS (
    UPDATE installation i
    SET current_key = $1
    FROM old o
    WHERE i.current_key = o.current_key AND i.current_key <> $1
    RETURNING i.current_key AS key_id, o.current_key AS key_id_before
),
audited AS (
    INSERT INTO audit_events (principal, peer, action, subject, before, after, reason)
    SELECT
        $2, $3, 'RotateKeys', u.key_id::text, jsonb_build_object('key_id', u.key_id_before),
        jsonb_build_object('key_id', u.key_id), $4
    FROM used u
    RETURNING subject
)
SELECT u.key_id_before
FROM used u
LEFT JOIN audited a ON a.subject = u.key_id::text
