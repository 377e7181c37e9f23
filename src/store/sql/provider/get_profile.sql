-- Of no pool: a version of a provider's profile. $1 the provider, $2 the version. No row when it was never applied.
SELECT p.provider_id, p.version, p.profile, p.applied_at
FROM providers p
WHERE p.provider_id = $1 AND p.version = $2
