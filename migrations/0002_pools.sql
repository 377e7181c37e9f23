-- Pools, and the plans that their accounts are filled for.
--
-- Text that is compared or ordered is COLLATE "C": byte order is the same on every machine, and the
-- cheapest. pool_id comes first in every key of every table, so that the tables can be distributed
-- by it.

CREATE TABLE pools (
    pool_id text COLLATE "C" PRIMARY KEY,
    currency_code text COLLATE "C" NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
    default_lease interval NOT NULL,
    min_lease interval NOT NULL,
    max_lease interval NOT NULL,
    -- Begins nothing new; what was begun is finished.
    paused bool NOT NULL DEFAULT false,
    -- What becomes of a redemption that was credited with another amount than expected.
    amount_mismatch text COLLATE "C" NOT NULL CHECK (amount_mismatch IN ('ACCEPT', 'NEEDS_REVIEW')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pools_lease_bounds CHECK (
        interval '1 second' <= min_lease
        AND min_lease <= default_lease
        AND default_lease <= max_lease
        AND max_lease <= interval '24 hours'
    )
);

CREATE TABLE plans (
    pool_id text COLLATE "C" NOT NULL REFERENCES pools (pool_id),
    plan_id text COLLATE "C" NOT NULL,
    -- The balance at which an account is COMPLETED, in minor units.
    target_minor bigint NOT NULL CHECK (target_minor > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, plan_id)
);
