-- What is due stands first in indexes of its own: docs/adr/2026-11-29-a-look-is-at-what-came-due-lately.md.
-- Looks read what came due since the look before, not all that was taken and given back since the table was
-- last vacuumed. Of all pools: one look asks which have something due.

-- Leases that are out, by their end. A renewal is not a HOT update any more. The condition holds for whatever is
-- not null, and only the looks state it: by IS NOT NULL, which a search for a request implies, Postgres
-- can take the smaller index for the way to a request, and read all of it for each.
CREATE INDEX accounts_lease_end ON accounts (lease_expires_at, pool_id)
    WHERE lease_request_id >= '';

-- Redemptions that nobody has settled, by when to look at them.
CREATE INDEX redemptions_due ON redemptions (next_check_at, pool_id)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT');
