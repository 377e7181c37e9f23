-- Records a reversal of a success, before the provider is asked. No row: it is no success, was taken back, has a living
-- reversal or one of this number, or a person's word about it was corrected since it was read.
-- $1 pool_id, $2 redemption id, $3 which of its reversals, $4 its state, $5 who asks for it, $6 why, $7 the evidence,
-- $8 when the reconciler takes over (null: never), $9 who asks for it as authentication found it,
-- $10 from where, $11 how many words about it were corrected when it was read: the amount is of the last.
-- The redemption is locked: no person's word about it is corrected meanwhile.
WITH known AS MATERIALIZED (
    SELECT r.redemption_id
    FROM redemptions r
    WHERE r.pool_id = $1
      AND r.redemption_id = $2
      AND r.state = 'SUCCEEDED'
      AND r.reversed_at IS NULL
      AND r.superseded = $11
    ORDER BY r.redemption_id
    FOR NO KEY UPDATE OF r
),
begun AS (
    INSERT INTO reversals AS v (
        pool_id, redemption_id, number, state, reversed_by, principal, reason, evidence, next_check_at
    )
    SELECT $1, k.redemption_id, $3, $4, $5, $9, $6, $7, now() + $8::interval
    FROM known k
    ON CONFLICT DO NOTHING
    RETURNING v.number, v.state
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after, reason)
    SELECT
        $1, $9, $10, 'ReverseRedemption', ($2::uuid)::text, jsonb_build_object('reversal', b.number, 'state', b.state),
        $6
    FROM begun b
)
SELECT b.number AS "number!" FROM begun b
