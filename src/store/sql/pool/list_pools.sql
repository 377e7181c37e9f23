-- Pools after $1, at most $2, whose id begins as one of $3 or is one of $4. Of all pools: it is the list of them.
SELECT
    p.pool_id, p.provider_id, p.currency_code, p.default_lease, p.min_lease, p.max_lease, p.paused, p.draining,
    p.holder_share_percent, p.hold_login_invalid, p.hold_limit_reached, p.hold_throttled, p.hold_longest,
    p.amount_mismatch, p.created_at, p.updated_at
FROM pools p
WHERE p.pool_id > $1
  AND (
      p.pool_id = ANY ($4::text[])
      OR EXISTS (SELECT FROM unnest($3::text[]) AS s (start) WHERE starts_with(p.pool_id, s.start))
  )
ORDER BY p.pool_id
LIMIT $2
