# shellcheck shell=sh
# What several scripts use. Sourced, with the project's directory as the current one.

# The oldest Postgres that will do.
OLDEST_POSTGRES=15

# What Postgres's programs read from the environment concerns other databases than those that are started here.
for name in $(env | sed -n 's/^\(PG[A-Za-z0-9_]*\)=.*/\1/p'); do
    unset "$name"
done

say() {
    echo "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Prints the directory of Postgres's programs: a setting's, the one on PATH, or the newest of the
# usual places. src/embedded/programs.rs looks in the same ones.
find_postgres() {
    if [ -n "${HOLDFAST_POSTGRES_BIN:-}" ]; then
        will_do "$HOLDFAST_POSTGRES_BIN"
        return
    fi
    if have initdb && will_do "$(dirname "$(command -v initdb)")"; then
        return 0
    fi
    for bin in $(installed_postgres | sort -t '	' -k 1,1nr | cut -f 2); do
        will_do "$bin" && return 0
    done
    return 1
}

# Prints $1 when it holds a Postgres that will do.
will_do() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    major=$("$1/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge "$OLDEST_POSTGRES" ] && echo "$1"
}

# Prints a version, a tab and a directory for each Postgres in the usual places.
installed_postgres() {
    for dir in /usr/lib/postgresql/* /usr/pgsql-* /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql* /usr/local/opt/postgresql*; do
        [ -d "$dir" ] || continue
        bin=$dir
        [ ! -d "$dir/bin" ] || bin=$dir/bin
        printf '%s\t%s\n' "$(basename "$dir" | tr -cd '0-9')" "$bin"
    done
}

# Runs a command as root: as it is, or by a sudo that asks for no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Installs packages by the system's package manager. Says what was printed when that fails.
install_packages() {
    say "installing $*"
    log=$(mktemp)
    if run_package_manager "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
}

run_package_manager() {
    if have brew; then
        brew install --quiet "$@"
    elif have apt-get; then
        as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@"
    elif have dnf; then
        as_root dnf install -q -y "$@"
    elif have pacman; then
        as_root pacman -Sy --noconfirm --needed "$@"
    elif have apk; then
        as_root apk add --quiet "$@"
    else
        echo "no package manager is known here" && false
    fi
}

# Prints the word of the arguments that is this system's: brew's, apt-get's, dnf's, pacman's, apk's.
package_name() {
    for manager in brew apt-get dnf pacman apk; do
        if have "$manager"; then
            echo "$1"
            return 0
        fi
        shift
    done
    echo "?"
}

# Installs Python packages into directory $1, and nowhere else: the other arguments are pip's.
pip_install() {
    target=$1
    shift
    # Beside its place, so that an interrupted installation is not taken for one.
    rm -rf "$target.new"
    mkdir -p "$target.new"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --target "$target.new" "$@" || return
    mv "$target.new" "$target"
}

# Installs cargo's tool $2 of version $3 into directory $1: as it was built by others where pip has it for this
# system, else built here, which takes some minutes.
install_cargo_tool() {
    scripts/setup.sh python && pip_install "$1" --only-binary :all: "astral-dev-toolchain-$2==$3" 2>/dev/null &&
        return 0
    say "building it (some minutes)"
    cargo install --quiet --locked --root "$1" --version "$3" "$2"
}

# Starts a Postgres for the script alone, which is stopped and removed when the script ends. Sets dir (its directory,
# which is also the host of its socket; $1 is the beginning of its name), bin (its programs) and psql.
start_postgres() {
    bin=$(find_postgres) || fail "no Postgres $OLDEST_POSTGRES or later was found; run: make setup"
    have "$bin/psql" && psql=$bin/psql || psql=psql
    have "$psql" || fail "psql is missing: install Postgres's client programs"

    # Short, because the path of a socket may be 107 bytes at most.
    dir=$(mktemp -d "/tmp/$1-XXXXXX")
    trap stop_postgres EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # Postgres does not run as root.
    user=
    if [ "$(id -u)" -eq 0 ]; then
        id postgres >/dev/null 2>&1 && user=postgres || user=nobody
        chown "$user" "$dir"
    fi
    init_and_start >"$dir/start.log" 2>&1 || {
        cat "$dir/start.log" "$dir/data/log" >&2 || true
        fail "Postgres did not start"
    }
}

init_and_start() {
    run_as_user "$bin/initdb" -A trust -U holdfast -E UTF8 --locale=C -N --no-instructions \
        -D "$dir/data" &&
        run_as_user "$bin/pg_ctl" start -w -D "$dir/data" -l "$dir/data/log" \
            -o "-F -k $dir -c listen_addresses= -c port=5432 -c shared_buffers=16MB"
}

stop_postgres() {
    run_as_user "$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1 || true
    rm -rf "$dir"
}

run_as_user() {
    if [ -n "$user" ]; then
        # shellcheck disable=SC2016
        (cd / && su -s /bin/sh "$user" -c 'exec "$0" "$@"' -- "$@")
    else
        "$@"
    fi
}

# Runs psql in the database $1 of that Postgres, with the other arguments. The first error ends it.
run_psql() {
    database=$1
    shift
    "$psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
        --host "$dir" --username holdfast --dbname "$database" "$@" >/dev/null
}

# Applies the migrations to the database $1.
apply_migrations() {
    for migration in migrations/*.sql; do
        [ -e "$migration" ] || fail "there are no migrations"
        run_psql "$1" --single-transaction --file "$migration" || fail "$migration cannot be applied"
    done
}
