-- Of no pool: the provider works again.
-- $1 the provider. Answers nothing.
UPDATE provider_limits l
SET failing = false,
    failing_since = 'infinity',
    retry_at = '-infinity',
    failed_tries = 0
WHERE l.provider_id = $1 AND l.failing
