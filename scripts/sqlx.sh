#!/bin/sh
# Keeps .sqlx, by which the statements are checked without a database when the program is built.
#
# usage: scripts/sqlx.sh prepare    writes .sqlx anew
#        scripts/sqlx.sh check      fails when it would come out differently
#
# A Postgres is started for this alone, gets the migrations, and is removed at the end.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

mode=${1:-}
case $mode in
prepare | check) ;;
*) fail "usage: scripts/sqlx.sh prepare|check" ;;
esac

start_postgres hf-sqlx

url="postgres://holdfast@$(echo "$dir" | sed 's|/|%2F|g')/postgres"
apply_migrations postgres

# With a database and this directory set, sqlx's macros write down what they learn of each
# statement. They run when the library is compiled, so it must look changed.
mkdir "$dir/fresh"
touch src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$dir/fresh" DATABASE_URL="$url" \
    cargo check --quiet --lib || fail "the library does not compile against the migrations"

if [ "$mode" = prepare ]; then
    mkdir -p .sqlx
    rm -f .sqlx/query-*.json
    find "$dir/fresh" -name 'query-*.json' -exec cp {} .sqlx/ \;
    say ".sqlx holds $(find .sqlx -name 'query-*.json' | wc -l | tr -d ' ') statements"
elif ! diff -r .sqlx "$dir/fresh" >"$dir/differences" 2>&1; then
    head -n 40 "$dir/differences" >&2
    fail ".sqlx does not fit the statements and migrations; run: make sqlx-prepare"
fi
