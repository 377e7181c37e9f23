-- What is told of a provider that fails, and of answers that prove nothing.

-- Since when the provider has failed as a whole; infinity while it works.
ALTER TABLE provider_limits ADD COLUMN failing_since timestamptz NOT NULL DEFAULT 'infinity';

-- How many checks had an answer that proves nothing, since the last one that did not find the redemption several times
-- in a row.
ALTER TABLE redemptions ADD COLUMN odd_checks integer NOT NULL DEFAULT 0;
