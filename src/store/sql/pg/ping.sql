-- Whether the database answers, and takes writes: no standby does, and no primary that was demoted by
-- default_transaction_read_only. Of no pool.
SELECT current_setting('transaction_read_only') = 'off' AS "writable!"
