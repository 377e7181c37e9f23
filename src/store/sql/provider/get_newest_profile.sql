-- Of no pool: the highest version of a provider's profile. $1 the provider. No row when none was ever applied.
SELECT p.provider_id, p.version, p.profile, p.applied_at
FROM providers p
WHERE p.provider_id = $1
ORDER BY p.version DESC
LIMIT 1
