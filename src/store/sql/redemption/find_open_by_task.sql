-- A redemption of a provider whose outcome is not known, by the provider's id of its work. Of all pools, as by its id.
-- $1 provider id, $2 the id of the work.
SELECT r.pool_id, r.redemption_id, r.early_check_at - now() AS early_check_in
FROM redemptions r
WHERE r.provider_id = $1
  AND r.provider_task = $2
  AND r.state IN ('SUBMITTED', 'IN_DOUBT')
LIMIT 1
