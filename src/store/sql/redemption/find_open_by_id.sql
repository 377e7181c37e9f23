-- A redemption of a provider whose outcome is not known, by its id. Of all pools of the provider, which does not know
-- pools: each is looked into by the key of redemptions.
-- $1 provider id, $2 redemption id.
SELECT r.pool_id, r.redemption_id, r.early_check_at - now() AS early_check_in
FROM pools p
JOIN redemptions r ON r.pool_id = p.pool_id AND r.redemption_id = $2
WHERE p.provider_id = $1
  AND r.provider_id = $1
  -- Not by the states that are open: see above.
  AND r.finished_at IS NULL
  AND r.state <> 'NEEDS_REVIEW'
LIMIT 1
