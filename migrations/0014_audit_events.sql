-- The audit trail: what people did, and which settings were changed. Each event is written by the statement that makes
-- the change: docs/adr/0053-an-audit-trail.md.

CREATE TABLE audit_events (
    -- Empty for what is of no pool: a provider, a token, a key.
    pool_id text COLLATE "C" NOT NULL DEFAULT '',
    -- By the database's clock, in 1/256 of a microsecond, of which the last part is random: it rises, and needs no
    -- sequence.
    event_id bigint NOT NULL
        DEFAULT ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 256 + floor(random() * 256)::bigint),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Who, as authentication found it; empty where nobody is asked who they are.
    principal text COLLATE "C" NOT NULL,
    -- The network address that the call came from; empty where it is not known.
    peer text COLLATE "C" NOT NULL,
    -- The RPC's name.
    action text COLLATE "C" NOT NULL,
    -- The id of what was changed.
    subject text COLLATE "C" NOT NULL,
    -- The values that changed. Codes and credentials are never in them.
    before jsonb CHECK (jsonb_typeof(before) = 'object'),
    after jsonb CHECK (jsonb_typeof(after) = 'object'),
    -- The reason that was given, where one was.
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (pool_id, event_id)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- Of all pools, newest first.
CREATE INDEX audit_events_newest ON audit_events (event_id);

CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Of the values of a row those that another one has not, or has otherwise: from the old row to the new one what was,
-- from the new one to the old one what is. Without ids, which name the row, and without counts and times.
CREATE FUNCTION changed_values(row_values jsonb, other_values jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(o.key, o.value)
    FROM jsonb_each(row_values) o
    WHERE o.value <> COALESCE(other_values -> o.key, 'null')
      AND o.key <> ALL ('{pool_id,plan_id,revision,created_at,updated_at}'::text[])
$$;

-- What is to be recorded of a change of an account that a person makes. The statement takes an array of these.
CREATE TYPE audit_note AS (
    -- The change that it tells of: without that there is no event.
    change_id uuid,
    principal text,
    peer text,
    action text,
    subject text,
    before jsonb,
    after jsonb,
    reason text
);
