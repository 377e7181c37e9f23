-- Of no pool: the provider fails as a whole, and is tried next in so long. No row: that is noted already.
-- $1 the provider, $2 in how long, $3 how many tries have failed, $4 true: a try has failed just now.
UPDATE provider_limits l
SET failing = true,
    failing_since = least(l.failing_since, now()),
    retry_at = now() + $2::interval,
    failed_tries = $3
WHERE l.provider_id = $1 AND (NOT l.failing OR $4::bool)
RETURNING l.provider_id
