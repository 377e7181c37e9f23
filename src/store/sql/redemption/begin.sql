-- Begin: redemptions are recorded, each under its lease and marked on its account, before anything is sent. The lease
-- is there already, or begins in the same change. What the account becomes was decided by domain/account.rs. Guards the
-- version and the change it was decided from, the pool's revision, and time; decides nothing.
-- $1 pool_id, $2 the revision of the pool from which they were decided; one element for each redemption: $3 the changes
-- of accounts, at most one of an account, $4 request ids, $5 whether to release on completion, $6 code fingerprints,
-- $7 code ciphertexts, $8 last four characters, $9 expected amounts in minor units, $10 whether those were learned,
-- $11 how long the provider may begin it, $12 when the reconciler takes over if nobody has settled it, $13 providers,
-- $14 the versions of their profiles; $15 the server that sends them; one element for each redemption: $16 the keys of
-- the fingerprints; one for each fingerprint of a code, by whichever key: $17 redemption ids, $18 keys, $19 fingerprints.
-- $20 which attempt of its request each redemption is.
-- One without a row in the answer is as it was: see apply.sql; or the request or the code is there already.
WITH asked AS MATERIALIZED (
    -- The changes come last: their columns have the names of their type.
    SELECT w.*
    FROM unnest(
        $4::text[], $5::bool[], $6::bytea[], $7::bytea[], $8::text[], $9::bigint[], $10::bool[], $11::interval[],
        $12::interval[], $13::text[], $14::int[], $16::int[], $20::int[], $3::account_change[]
    ) AS w (
        request_id, release_on_completion, code_fingerprint, code_ciphertext, code_last4, expected_minor,
        expected_learned, not_after_in, take_over_in, provider_id, provider_version, key_id, attempt
    )
    WHERE EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.revision = $2)
      -- Servers may know different keys for a moment. Where nothing was installed there is the first alone.
      AND w.key_id = coalesce((SELECT i.current_key FROM installation i), 1)
),
cur AS MATERIALIZED (
    SELECT
        c.*, c.open_redemption_id AS id, a.holder AS was_holder, a.status AS from_status,
        CASE WHEN c.plan_id IS NOT NULL THEN c.plan_day END AS day_of_plan,
        now() AS at,
        ((now() AT TIME ZONE 'utc') + c.lease_for) AT TIME ZONE 'utc' AS lease_ends_at
    FROM asked c
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = c.account_id AND a.token_group = c.seen_token / 16
        AND a.fencing_token = c.seen_token
    WHERE a.pool_id = $1
      AND a.version = c.version
      AND a.change_id = c.seen
      AND (c.guard <> 'alive' OR a.lease_expires_at > now())
      AND (c.guard <> 'free' OR a.idle_since <= now())
      AND (a.usable_at IS NULL OR a.usable_at <= now())
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
-- With several keys, a code may have been begun under another.
free AS MATERIALIZED (
    SELECT k.*
    FROM cur k
    WHERE (SELECT count(*) FROM secret_keys s) <= 1
       OR code_is_free(
            $1,
            k.key_id,
            ARRAY(
                SELECT f.key_id
                FROM unnest($17::uuid[], $18::int[]) AS f (redemption_id, key_id)
                WHERE f.redemption_id = k.id
            ),
            ARRAY(
                SELECT f.fingerprint
                FROM unnest($17::uuid[], $19::bytea[]) AS f (redemption_id, fingerprint)
                WHERE f.redemption_id = k.id
            )
       )
),
recorded AS (
    INSERT INTO redemptions AS r (
        pool_id, redemption_id, account_id, fencing_token, request_id, attempt, principal, holder, state,
        release_on_completion, code_fingerprint, code_fingerprint_key, code_ciphertext, code_last4, expected_minor,
        expected_learned, plan_id, plan_day, not_after, next_check_at, provider_id, provider_version, server_id
    )
    SELECT
        $1, k.id, k.account_id, k.fencing_token, k.request_id, k.attempt, k.principal,
        COALESCE(k.holder, k.was_holder), 'SUBMITTED', k.release_on_completion, k.code_fingerprint, k.key_id,
        k.code_ciphertext, k.code_last4, k.expected_minor, k.expected_learned, k.plan_id, k.day_of_plan,
        now() + k.not_after_in, now() + k.take_over_in, k.provider_id, k.provider_version, $15::uuid
    FROM free k
    ON CONFLICT DO NOTHING
    RETURNING r.*
),
-- What an acquisition and a begin change. A lease that begins here is in no row of the leases: nobody asks for it by its
-- request.
marked AS (
    UPDATE accounts a
    SET status = k.status,
        resume_status = k.resume_status,
        fencing_token = k.fencing_token,
        holder = COALESCE(k.holder, a.holder),
        lease_principal = COALESCE(k.lease_principal, a.lease_principal),
        lease_request_id = COALESCE(k.lease_request_id, a.lease_request_id),
        lease_acquired_at = CASE WHEN k.holder IS NOT NULL THEN k.at ELSE a.lease_acquired_at END,
        lease_expires_at = COALESCE(k.lease_ends_at, a.lease_expires_at),
        bound_by_lease = k.bound_by_lease,
        lease_end = k.lease_end,
        plan_id = k.plan_id,
        open_redemption_id = k.id,
        reserved_minor = k.reserved_minor,
        version = k.version + 1,
        change_id = k.change_id,
        updated_at = now()
    FROM recorded s
    JOIN cur k ON k.id = s.redemption_id
    WHERE a.pool_id = $1
      AND a.account_id = k.account_id
      AND a.token_group = k.seen_token / 16
      AND a.fencing_token = k.seen_token
      AND a.version = k.version
      AND a.change_id = k.seen
    RETURNING
        a.account_id, a.version, a.change_id, a.updated_at, a.status, a.fencing_token, a.balance_minor,
        a.lease_expires_at, a.open_redemption_id, a.holder, k.principal, k.reason, k.from_status
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, change_id, happened_at, actor, principal, reason, from_status, to_status,
        fencing_token, redemption_id, balance_minor, lease_expires_at
    )
    SELECT
        $1, m.account_id, m.version, m.change_id, m.updated_at, m.holder, m.principal, m.reason, m.from_status,
        m.status, m.fencing_token, m.open_redemption_id, m.balance_minor, m.lease_expires_at
    FROM marked m
),
-- For the servers that keep the accounts in memory: those that were free.
told AS (
    INSERT INTO account_changes (pool_id, server_id, account_ids)
    SELECT $1, $15::uuid, array_agg(m.account_id)
    FROM marked m
    WHERE m.from_status <> m.status
    HAVING count(*) > 0
)
SELECT
    -- Fails the statement as a whole where one was recorded that is not marked on its account.
    1 / ((SELECT count(*) FROM recorded) = (SELECT count(*) FROM marked))::int AS "is_whole!",
    s.redemption_id, s.account_id, s.fencing_token, s.request_id, s.attempt, s.principal, s.holder, s.state, s.code_last4,
    s.expected_minor,
    s.expected_learned, s.release_on_completion, s.plan_id, s.plan_day, s.amount_minor, s.amount_currency,
    s.provider_ref, s.provider_id, s.provider_version, s.provider_task, s.failure_reason, s.failure_message,
    s.code_spent, s.resolved_by, s.resolved_principal, s.resolution_reason, s.resolution_evidence, s.attempts,
    s.last_answer, s.superseded,
    s.next_check_at, s.created_at, s.finished_at, s.reversed_at, s.not_after
FROM recorded s
