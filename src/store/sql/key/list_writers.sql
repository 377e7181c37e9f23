-- Of no pool: the transactions that are writing redemptions, credentials or subscriptions at this moment, by the locks that they have:
-- each took its lock before it looked at anything.
-- $1 of these alone; null: of all.
SELECT DISTINCT l.virtualtransaction AS "writer!"
FROM pg_locks l
WHERE l.locktype = 'relation'
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.relation IN ('redemptions'::regclass, 'account_credentials'::regclass, 'subscriptions'::regclass)
  AND l.mode = 'RowExclusiveLock'
  AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1::text[]))
