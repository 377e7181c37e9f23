-- Which versions of profiles were applied, and when. Of no pool: a few rows, without the files.
SELECT p.provider_id, p.version, p.applied_at
FROM providers p
ORDER BY p.provider_id, p.version
