-- A redemption of a provider whose outcome is not known, by the provider's id of its work, and whether a server asks
-- about it now. Of all pools, as by its id.
-- $1 provider id, $2 the id of the work.
SELECT r.pool_id, r.redemption_id, r.checked_until > now() OR r.early_check_at > now() AS is_held
FROM redemptions r
WHERE r.provider_id = $1
  AND r.provider_task = $2
  AND r.state IN ('SUBMITTED', 'IN_DOUBT')
LIMIT 1
