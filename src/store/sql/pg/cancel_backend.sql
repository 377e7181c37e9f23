-- Cancels the statement that a backend is running for somebody who does not wait for it any more. Of no
-- pool.
-- $1 the backend's process, $2 since when it is there: after a failover another one may have its number.
-- Answers with nothing where there is no such backend.
SELECT pg_cancel_backend(s.pid) AS "cancelled!"
FROM pg_stat_activity s
WHERE s.pid = $1 AND s.backend_start = $2
