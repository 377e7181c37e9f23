-- Webhooks: calls of providers bring look-ups forward.

-- Until when a server has the redemption for a check, which may send again, cancel or reverse: no call is followed by a
-- look-up meanwhile. Null, or in the past: none has.
ALTER TABLE redemptions ADD COLUMN checked_until timestamptz;

-- Open redemptions by the provider's id of its work, of all pools: a provider does not know pools. Few rows have one
-- and are open.
CREATE INDEX redemptions_open_tasks ON redemptions (provider_id, provider_task)
    WHERE provider_task IS NOT NULL AND state IN ('SUBMITTED', 'IN_DOUBT');
