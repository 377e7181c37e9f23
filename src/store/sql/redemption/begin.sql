-- Begin: redemptions are recorded, each under its lease and marked on its account, before anything is sent. What the
-- account becomes was decided by domain/account.rs. Guards the version and the change it was decided from, the
-- pool's revision, and time; decides nothing.
-- $1 pool_id, $2 the revision of the pool from which they were decided; one element for each redemption, at most one
-- of an account: $3 redemption ids, $4 account ids, $5 fencing tokens, $6 versions, $7 changes, $8 ids of the new
-- changes, $9 request ids, $10 whether to release on completion, $11 code fingerprints, $12 code ciphertexts, $13 last
-- four characters, $14 expected amounts in minor units, $15 whether those were learned, $16 what is reserved then,
-- $17 how long the provider may begin it, $18 when the reconciler takes over if nobody has settled it, $19 providers,
-- $20 the versions of their profiles; $21 the server that sends them; one element for each redemption: $22 the keys of
-- the fingerprints; one for each fingerprint of a code, by whichever key: $23 redemption ids, $24 keys, $25 fingerprints.
-- $26 who begins each redemption; $27 which attempt of its request it is.
-- One without a row in the answer is as it was: see apply.sql; or the request or the code is there already.
WITH asked AS MATERIALIZED (
    SELECT w.*
    FROM unnest(
        $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[], $8::uuid[], $9::text[], $10::bool[],
        $11::bytea[], $12::bytea[], $13::text[], $14::bigint[], $15::bool[], $16::bigint[], $17::interval[],
        $18::interval[], $19::text[], $20::int[], $22::int[], $26::text[], $27::int[]
    ) AS w (
        redemption_id, account_id, token, version, seen, change_id, request_id, release_on_completion,
        code_fingerprint, code_ciphertext, code_last4, expected_minor, expected_learned, reserved_minor, not_after_in,
        take_over_in, provider_id, provider_version, key_id, principal, attempt
    )
    WHERE EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.revision = $2)
      -- Servers may know different keys for a moment. Where nothing was installed there is the first alone.
      AND w.key_id = coalesce((SELECT i.current_key FROM installation i), 1)
),
cur AS MATERIALIZED (
    SELECT
        c.*, a.holder, a.plan_id, CASE WHEN a.plan_id IS NOT NULL THEN a.plan_day END AS plan_day
    FROM asked c
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = c.account_id AND a.token_group = c.token / 16
        AND a.fencing_token = c.token
    WHERE a.pool_id = $1
      AND a.version = c.version
      AND a.change_id = c.seen
      AND a.lease_expires_at > now()
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
                FROM unnest($23::uuid[], $24::int[]) AS f (redemption_id, key_id)
                WHERE f.redemption_id = k.redemption_id
            ),
            ARRAY(
                SELECT f.fingerprint
                FROM unnest($23::uuid[], $25::bytea[]) AS f (redemption_id, fingerprint)
                WHERE f.redemption_id = k.redemption_id
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
        $1, k.redemption_id, k.account_id, k.token, k.request_id, k.attempt, k.principal, k.holder, 'SUBMITTED',
        k.release_on_completion, k.code_fingerprint, k.key_id, k.code_ciphertext, k.code_last4, k.expected_minor,
        k.expected_learned, k.plan_id, k.plan_day, now() + k.not_after_in, now() + k.take_over_in, k.provider_id,
        k.provider_version, $21::uuid
    FROM free k
    ON CONFLICT DO NOTHING
    RETURNING r.*
),
marked AS (
    UPDATE accounts a
    SET open_redemption_id = k.redemption_id,
        reserved_minor = k.reserved_minor,
        version = k.version + 1,
        change_id = k.change_id,
        updated_at = now()
    FROM recorded s
    JOIN cur k ON k.redemption_id = s.redemption_id
    WHERE a.pool_id = $1
      AND a.account_id = k.account_id
      AND a.token_group = k.token / 16
      AND a.fencing_token = k.token
      AND a.version = k.version
      AND a.change_id = k.seen
    RETURNING
        a.account_id, a.version, a.change_id, a.updated_at, a.status, a.fencing_token, a.balance_minor,
        a.lease_expires_at, a.open_redemption_id, a.holder, k.principal
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, change_id, happened_at, actor, principal, reason, from_status, to_status,
        fencing_token, redemption_id, balance_minor, lease_expires_at
    )
    SELECT
        $1, m.account_id, m.version, m.change_id, m.updated_at, m.holder, m.principal, 'redeem_begun', m.status,
        m.status, m.fencing_token, m.open_redemption_id, m.balance_minor, m.lease_expires_at
    FROM marked m
)
SELECT
    -- Fails the statement as a whole where one was recorded that is not marked on its account.
    1 / ((SELECT count(*) FROM recorded) = (SELECT count(*) FROM marked))::int AS "is_whole!",
    s.redemption_id, s.account_id, s.fencing_token, s.request_id, s.attempt, s.principal, s.holder, s.state, s.code_last4,
    s.expected_minor,
    s.expected_learned, s.release_on_completion, s.plan_id, s.plan_day, s.amount_minor, s.amount_currency,
    s.provider_ref, s.provider_id, s.provider_version, s.provider_task, s.failure_reason, s.failure_message,
    s.code_spent, s.resolved_by, s.resolved_principal, s.resolution_reason, s.resolution_evidence, s.attempts,
    s.last_answer,
    s.next_check_at, s.created_at, s.finished_at, s.reversed_at, s.not_after
FROM recorded s
