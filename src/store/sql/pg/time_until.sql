-- How long it is until a time, by the database's clock; less than nothing where it has passed. $1 the time. Of no pool.
SELECT $1::timestamptz - now() AS "left!"
