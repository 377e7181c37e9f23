-- Who said the amount that a redemption expects.

-- False: whoever asked for the redemption. True: nobody did, and the provider said so when it was asked
-- about the card before an account was chosen. Such an amount is no part of the wish: the same request
-- again, without an amount, is answered with this redemption, whatever the card is worth by then. The
-- default is a constant, so that no row is written anew, and that of servers which do not ask.
ALTER TABLE redemptions ADD COLUMN expected_learned bool NOT NULL DEFAULT false;
