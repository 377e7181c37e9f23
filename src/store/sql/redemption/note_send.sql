-- Notes that a redemption in doubt is sent again, before it is: what an answer proves later depends on the last send.
-- $1 pool_id, $2 redemption id, $3 the check that sends it. No row: another server checks it by now, or it is settled.
UPDATE redemptions r
SET sent_again_at = now(),
    updated_at = now()
WHERE r.pool_id = $1
  AND r.redemption_id = $2
  AND r.state = 'IN_DOUBT'
  AND r.checks = $3
RETURNING r.redemption_id
