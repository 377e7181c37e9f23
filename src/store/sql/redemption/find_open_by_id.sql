-- A redemption of a provider whose outcome is not known, by its id, and whether a server asks about it now. Of all
-- pools of the provider, which does not know pools: each is looked into by the key of redemptions.
-- $1 provider id, $2 redemption id.
SELECT r.pool_id, r.redemption_id, r.checked_until > now() OR r.early_check_at > now() AS is_held
FROM pools p
JOIN redemptions r ON r.pool_id = p.pool_id AND r.redemption_id = $2
WHERE p.provider_id = $1
  AND r.provider_id = $1
  -- Not by the states that are open: see above.
  AND r.finished_at IS NULL
  AND r.state <> 'NEEDS_REVIEW'
LIMIT 1
