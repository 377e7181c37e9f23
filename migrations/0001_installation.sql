-- The installation: what there is one of in a database.

CREATE TABLE installation (
    -- Always true: the table holds one row.
    singleton bool PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Derived from the secret key. A server whose key gives another value is refused at start: it could neither read
    -- the stored codes nor find the fingerprints of those that are wiped.
    key_check bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
