-- Keeps the provider's id of its work on a redemption that is open. The first one stays.
-- $1 pool_id, $2 redemption id, $3 the id of the work.
UPDATE redemptions r
SET provider_task = COALESCE(r.provider_task, $3::text),
    updated_at = now()
WHERE r.pool_id = $1
  AND r.redemption_id = $2
  AND r.finished_at IS NULL
RETURNING r.provider_task AS "provider_task!"
