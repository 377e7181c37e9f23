-- Attempts: an item of a batch whose card was not spent is redeemed again when its batch is opened again. Each attempt
-- is a redemption of its own, under the same request.

ALTER TABLE redemptions ADD COLUMN attempt integer DEFAULT 1 NOT NULL;
ALTER TABLE redemptions ADD CONSTRAINT redemptions_attempt_check CHECK (attempt >= 1);

CREATE UNIQUE INDEX redemptions_request_attempt ON redemptions (pool_id, request_id, principal, attempt);
DROP INDEX redemptions_request;
ALTER INDEX redemptions_request_attempt RENAME TO redemptions_request;
