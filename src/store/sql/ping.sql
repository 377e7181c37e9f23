-- Whether the database answers, and takes writes. Of no pool.
SELECT NOT pg_is_in_recovery() AS "writable!"
