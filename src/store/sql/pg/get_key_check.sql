-- The check value of the secret key that this database's codes are encrypted with. Of no pool.
SELECT i.key_check AS "key_check!" FROM installation i
