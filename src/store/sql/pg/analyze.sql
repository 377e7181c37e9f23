-- Of no pool: Postgres counts the rows of the tables that hot statements are planned for, and plans them anew.
-- SKIP_LOCKED: another server is doing it.
ANALYZE (SKIP_LOCKED) accounts, redemptions, plans
