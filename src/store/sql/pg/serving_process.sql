-- Which of Postgres's processes serves this connection now. Of no pool. A pooler may give each statement another one.
SELECT pg_backend_pid() AS "pid!"
