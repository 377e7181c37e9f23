-- What holds for all servers together when they call a provider: its pace, its pauses, and the calls under way.

-- One row for each provider that was called within limits, or that failed. Of no pool: a provider is one for all pools.
CREATE TABLE provider_limits (
    provider_id text COLLATE "C" PRIMARY KEY,
    -- When the next call may begin, by the rate.
    next_call_at timestamptz NOT NULL DEFAULT '-infinity',
    -- No call begins before: the provider asked for that, or its quota is used up.
    held_until timestamptz NOT NULL DEFAULT '-infinity',
    -- The provider fails as a whole: no call begins before retry_at, and then one that tries.
    failing boolean NOT NULL DEFAULT false,
    retry_at timestamptz NOT NULL DEFAULT '-infinity',
    -- How many tries in a row have failed.
    failed_tries integer NOT NULL DEFAULT 0
);

-- Places for what may be under way at a time: calls, and sends that may fail in a way that the provider counts.
-- A place is taken for a time. So a server that dies keeps none for ever.
CREATE TABLE provider_slots (
    provider_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('call', 'brake')),
    slot integer NOT NULL CHECK (slot >= 0),
    -- Rises each time it is taken: who had it before cannot give it back.
    taken bigint NOT NULL DEFAULT 0,
    free_at timestamptz NOT NULL DEFAULT '-infinity',
    -- Of a brake: when who took it must have its answer. Past this, a place that is not free counts as a failure.
    answer_by timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (provider_id, kind, slot)
);
