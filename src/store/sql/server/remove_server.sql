-- Of no pool: removes a server that ends with nothing in progress, so that nobody has to judge it.
-- $1 the server's id. Answers nothing.
DELETE FROM servers s
WHERE s.server_id = $1
