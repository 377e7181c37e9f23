-- Providers: their profiles, and which one a pool and a redemption have.

-- Profiles as they were applied. A version never changes: redemptions are looked up, sent again and audited under the
-- version that they were begun with. Of no pool, like installation: a few rows. The built-in profile, holdfast, ships
-- with the program and has no row.
CREATE TABLE providers (
    provider_id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    -- The file. Secrets are no part of it.
    profile text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider_id, version)
);

CREATE TRIGGER providers_append_only BEFORE UPDATE OR DELETE ON providers
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Keys that are shorter than a redemption's id, so that two ids could have the same. Of no pool: the provider has one
-- set of keys for all of them.
CREATE TABLE provider_keys (
    provider_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    redemption_id uuid NOT NULL,
    PRIMARY KEY (provider_id, key)
);

-- The pool's provider. It never changes: code fingerprints are made with it.
ALTER TABLE pools ADD COLUMN provider_id text COLLATE "C" NOT NULL DEFAULT 'holdfast';

-- The profile that a redemption is pinned to.
ALTER TABLE redemptions ADD COLUMN provider_id text COLLATE "C" NOT NULL DEFAULT 'holdfast';
ALTER TABLE redemptions ADD COLUMN provider_version integer NOT NULL DEFAULT 1;
-- The provider's id of its work. Committed before it is first asked about by that id.
ALTER TABLE redemptions ADD COLUMN provider_task text;
-- When the last send after the send window began; null when there was none.
ALTER TABLE redemptions ADD COLUMN sent_again_at timestamptz;
