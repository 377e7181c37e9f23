-- What a person looked at before closing a redemption by hand: the provider's own record, a ticket.
-- Beside resolved_by and resolution_reason, and like them kept for good.

-- Null where nobody resolved it, and where whoever did named nothing. No default, so that no row is
-- written anew.
ALTER TABLE redemptions ADD COLUMN resolution_evidence text;
