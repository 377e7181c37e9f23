-- Webhooks: calls of providers name redemptions by the provider's id of its work.

-- Open redemptions by that id, of all pools: a provider does not know pools. Few rows have one and are open.
CREATE INDEX redemptions_open_tasks ON redemptions (provider_id, provider_task)
    WHERE provider_task IS NOT NULL AND state IN ('SUBMITTED', 'IN_DOUBT');
