-- Records what a person did, or a setting that was changed, where no one statement makes the change.
-- $1 pool_id (empty: of no pool), $2 who, $3 from where, $4 what, $5 of what, $6 what was, $7 what is, $8 the reason.
INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
