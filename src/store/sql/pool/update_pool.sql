-- Changes a pool where a value is given. No row when there is no such pool, or when the lease
-- durations would be out of order. Another change may have come between its caller's read and this.
UPDATE pools p
SET default_lease = COALESCE($2::interval, p.default_lease),
    min_lease = COALESCE($3::interval, p.min_lease),
    max_lease = COALESCE($4::interval, p.max_lease),
    paused = COALESCE($5::bool, p.paused),
    amount_mismatch = COALESCE($6::text, p.amount_mismatch),
    draining = COALESCE($7::bool, p.draining),
    holder_share_percent = COALESCE($8::int, p.holder_share_percent),
    hold_login_invalid = COALESCE($9::interval, p.hold_login_invalid),
    hold_limit_reached = COALESCE($10::interval, p.hold_limit_reached),
    hold_throttled = COALESCE($11::interval, p.hold_throttled),
    hold_longest = COALESCE($12::interval, p.hold_longest),
    updated_at = now()
WHERE p.pool_id = $1
  AND COALESCE($3::interval, p.min_lease) <= COALESCE($2::interval, p.default_lease)
  AND COALESCE($2::interval, p.default_lease) <= COALESCE($4::interval, p.max_lease)
RETURNING
    p.pool_id, p.provider_id, p.currency_code, p.default_lease, p.min_lease, p.max_lease, p.paused, p.draining,
    p.holder_share_percent, p.hold_login_invalid, p.hold_limit_reached, p.hold_throttled, p.hold_longest,
    p.amount_mismatch, p.created_at, p.updated_at
