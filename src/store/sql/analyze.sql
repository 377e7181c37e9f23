-- Has Postgres count the rows of the tables that hot statements are planned for, and plan them anew. Of all
-- pools: a table is counted as a whole. SKIP_LOCKED: another server is doing it.
ANALYZE (SKIP_LOCKED) accounts, redemptions, plans
