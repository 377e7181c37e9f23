-- Of no pool: no call begins for so long. Never shortens what others were told.
-- $1 the provider, $2 for how long. Answers nothing.
UPDATE provider_limits l
SET held_until = greatest(l.held_until, now() + $2::interval)
WHERE l.provider_id = $1
