-- Of no pool: whether the caller is the one to try a provider that fails. For so long nobody else does.
-- $1 the provider, $2 for how long. No row: it is not the time, or somebody else tries, or it does not fail any more.
UPDATE provider_limits l
SET retry_at = now() + $2::interval
WHERE l.provider_id = $1 AND l.failing AND l.retry_at <= now()
RETURNING l.failed_tries
