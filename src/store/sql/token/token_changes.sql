-- Of no pool: how often tokens were changed.
SELECT c.changes FROM token_changes c WHERE c.only_row
