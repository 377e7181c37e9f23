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

bin=$(find_postgres) || fail "no Postgres $OLDEST_POSTGRES or later was found; run: make setup"
have "$bin/psql" && psql=$bin/psql || psql=psql
have "$psql" || fail "psql is missing: install Postgres's client programs"

# Short, because the path of a socket may be 107 bytes at most.
dir=$(mktemp -d /tmp/hf-sqlx-XXXXXX)

# Postgres does not run as root.
user=
if [ "$(id -u)" -eq 0 ]; then
    id postgres >/dev/null 2>&1 && user=postgres || user=nobody
    chown "$user" "$dir"
fi
run_as_user() {
    if [ -n "$user" ]; then
        # shellcheck disable=SC2016
        (cd / && su -s /bin/sh "$user" -c 'exec "$0" "$@"' -- "$@")
    else
        "$@"
    fi
}

stop() {
    run_as_user "$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {
    run_as_user "$bin/initdb" -A trust -U holdfast -E UTF8 --locale=C -N --no-instructions \
        -D "$dir/data" &&
        run_as_user "$bin/pg_ctl" start -w -D "$dir/data" -l "$dir/data/log" \
            -o "-F -k $dir -c listen_addresses= -c port=5432 -c shared_buffers=16MB"
}
start >"$dir/start.log" 2>&1 || {
    cat "$dir/start.log" "$dir/data/log" >&2 || true
    fail "Postgres did not start"
}

url="postgres://holdfast@$(echo "$dir" | sed 's|/|%2F|g')/postgres"
for migration in migrations/*.sql; do
    [ -e "$migration" ] || fail "there are no migrations"
    "$psql" --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 \
        --host "$dir" --username holdfast --dbname postgres --file "$migration" >/dev/null ||
        fail "$migration cannot be applied"
done

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
