-- Lets go of all that a server delivers, because it stops. Of no pool: it is the server's. $1 the server's id.
UPDATE subscriptions s
SET claimed_by = NULL
WHERE s.claimed_by = $1
