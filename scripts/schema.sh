#!/bin/sh
# Keeps schema.sql, which shows the schema as the migrations leave it.
#
# usage: scripts/schema.sh prepare    writes schema.sql anew
#        scripts/schema.sh check      fails when it makes another schema than the migrations
#
# A Postgres is started for this alone, and is removed at the end. Versions of Postgres print the same schema in
# different ways. So the check compares no text with schema.sql: it dumps what schema.sql makes and what the migrations
# make, with the same version.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

mode=${1:-}
case $mode in
prepare | check) ;;
*) fail "usage: scripts/schema.sh prepare|check" ;;
esac

start_postgres hf-schema
have "$bin/pg_dump" && pg_dump=$bin/pg_dump || pg_dump=pg_dump
have "$pg_dump" || fail "pg_dump is missing: install Postgres's client programs"

# Prints the schema of the database $1 without what differs from dump to dump.
dump() {
    "$pg_dump" --schema-only --no-owner --no-privileges --host "$dir" --username holdfast "$1" |
        grep -v -e '^\\restrict ' -e '^\\unrestrict '
}

# Groups a dump by table, and leaves out what only a restore needs. In functions, names keep their schema.
arrange() {
    awk '
    /^-- Name: / {
        split($0, head, /; Type: /)
        name = head[1]; sub(/^-- Name: /, "", name); sub(/ .*/, "", name)
        type = head[2]; sub(/;.*/, "", type)
        section = type == "TYPE" || type == "FUNCTION" ? type : name
        blank = 1
        next
    }
    section == "" || /^SET / || (!body && /^--/) { next }
    /^$/ && !body { blank = 1; next }
    {
        # An index is named without its table.
        if (type == "INDEX") { section = $0; sub(/.* ON public\./, "", section); sub(/ .*/, "", section) }
        if (blank) { parts[section] = parts[section] "\n" }
        blank = 0
        was_body = body
        if (gsub(/\$\$/, "$$") == 1) { body = !body }
        if (!was_body) {
            gsub(/public\./, ""); gsub(/pg_catalog\."C"/, "\"C\""); gsub(/ONLY /, "")
            gsub(/timestamp with time zone/, "timestamptz"); gsub(/\t/, "    ")
        }
        parts[section] = parts[section] $0 "\n"
    }
    function put(title, section) {
        text = parts[section]
        delete parts[section]
        sub(/^\n+/, "", text); sub(/\n+$/, "", text)
        printf "\n\n-- %s\n\n%s\n", title, text
    }
    END {
        put("Types", "TYPE")
        put("Functions", "FUNCTION")
        tables = split("secret_keys installation pools plans accounts leases account_events account_changes account_credentials redemptions redemption_outcomes subscriptions deliveries reversals superseded_resolutions audit_events servers providers provider_keys provider_limits provider_slots tokens token_changes", order, " ")
        for (i = 1; i <= tables; i++) { put("Table " order[i], order[i]) }
        for (left in parts) { print "scripts/schema.sh has no section for " left > "/dev/stderr"; exit 1 }
    }'
}

apply_migrations postgres
dump postgres >"$dir/migrated.sql"

if [ "$mode" = prepare ]; then
    {
        echo "-- The schema as the migrations leave it, in the schema public. Written by: scripts/schema.sh prepare"
        echo "-- migrations/ says why each thing is there. A test applies both, and compares."
        arrange <"$dir/migrated.sql"
    } >"$dir/schema.sql"
    cp "$dir/schema.sql" schema.sql
    say "schema.sql has $(wc -l <schema.sql | tr -d ' ') lines"
else
    [ -e schema.sql ] || fail "there is no schema.sql; run: make schema-prepare"
    run_psql postgres --command 'CREATE DATABASE shown'
    run_psql shown --single-transaction --file schema.sql || fail "schema.sql cannot be applied"
    dump shown >"$dir/shown.sql"
    if ! diff "$dir/shown.sql" "$dir/migrated.sql" >"$dir/differences"; then
        head -n 40 "$dir/differences" >&2
        fail "schema.sql shows another schema than the migrations make; run: make schema-prepare"
    fi
fi
