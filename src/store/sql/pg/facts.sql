-- Of no pool: how many connections there are and the role may have (less than 0: any number), which standbys are
-- connected, and what time it is. A role without pg_monitor is told that there are standbys, and not of what kind they
-- are: those are the unknown ones.
SELECT
    (SELECT r.rolconnlimit FROM pg_roles r WHERE r.rolname = current_user) AS "role_connections!",
    (SELECT count(*) FROM pg_stat_replication s WHERE s.sync_state IN ('sync', 'quorum')) AS "synchronous_standbys!",
    (SELECT count(*) FROM pg_stat_replication s WHERE s.sync_state IS NULL) AS "unknown_standbys!",
    (SELECT COALESCE(sum(d.numbackends), 0)::bigint FROM pg_stat_database d) AS "connections!",
    (extract(epoch FROM now()) * 1000)::bigint AS "now_ms!"
