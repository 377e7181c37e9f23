-- Of no pool: keeps a version of a provider's profile. No row when that version is there already, whatever it says.
-- $1 the provider, $2 the version, $3 the file.
INSERT INTO providers AS p (provider_id, version, profile)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING p.provider_id, p.version, p.profile, p.applied_at
