-- The outcome of a reversal stays unknown for now: it keeps what was answered and when to check next. One that a person
-- must review is not checked again, and never goes back to doubt. No row: it is settled, or another server checks it.
-- $1 pool_id, $2 redemption id, $3 which of its reversals, $4 IN_DOUBT or NEEDS_REVIEW, $5 what was answered, $6 until
-- the next check (null: none), $7 calls made since the last record, $8 checks up to this one.
UPDATE reversals v
SET state = $4,
    last_answer = $5,
    next_check_at = now() + $6::interval,
    attempts = v.attempts + $7,
    updated_at = now()
WHERE v.pool_id = $1
  AND v.redemption_id = $2
  AND v.number = $3
  AND v.state IN ('REQUESTED', 'IN_DOUBT')
  AND v.checks = $8
RETURNING v.number
