#!/bin/sh
# Installs what is missing to build and to test: Rust, a C compiler, Postgres and PgBouncer; with the word
# "python", Python's package installer as well, and with "node" Node and npm. Does nothing, quickly, when all of it is
# there.
#
# usage: scripts/setup.sh [python] [node]

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
PATH=$HOME/.cargo/bin:$PATH

# "1.95" of `rust-version = "1.95"`.
wanted_rust() {
    sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml
}

# Whether version $1 is at least version $2; both are like 1.95.
is_at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n | head -n 1)" = "$2" ]
}

rust_is_new_enough() {
    have cargo && have rustc || return 1
    found=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ -n "$found" ] && is_at_least "$found" "$(wanted_rust)"
}

set_up_rust() {
    rust_is_new_enough && return
    if ! have rustup && ! have rustup-init; then
        install_packages "$(package_name rustup rustup rustup rustup rustup)" || true
    fi
    if have rustup; then
        say "installing the stable Rust"
        rustup toolchain install stable --profile minimal --component rustfmt,clippy >&2
        rustup default stable >&2
    elif have rustup-init; then
        say "installing the stable Rust"
        rustup-init -y --no-modify-path --profile minimal --component rustfmt,clippy >&2
    fi
    rust_is_new_enough ||
        fail "Rust $(wanted_rust) or later is missing: install rustup, then run: rustup default stable"
}

set_up_c_compiler() {
    have cc && return
    install_packages "$(package_name gcc gcc gcc gcc gcc)" \
        "$(package_name make libc6-dev glibc-devel make musl-dev)" || true
    have cc || fail "a C compiler is missing: install gcc or clang, so that there is a program cc"
}

set_up_postgres() {
    find_postgres >/dev/null && return
    [ -z "${HOLDFAST_POSTGRES_BIN:-}" ] ||
        fail "HOLDFAST_POSTGRES_BIN holds no Postgres $OLDEST_POSTGRES or later"
    package=$(package_name postgresql@17 postgresql postgresql-server postgresql postgresql)
    install_packages "$package" || true
    find_postgres >/dev/null || fail "Postgres $OLDEST_POSTGRES or later is missing: install its" \
        "server (Debian and Ubuntu: postgresql; Fedora: postgresql-server; Homebrew:" \
        "postgresql@17), or name the directory of its programs in HOLDFAST_POSTGRES_BIN"
}

have_pgbouncer() {
    have pgbouncer || [ -x /usr/sbin/pgbouncer ] || [ -n "${HOLDFAST_TEST_PGBOUNCER:-}" ]
}

# For the tests alone. Where it is installed as a service, it is not needed as one.
set_up_pgbouncer() {
    have_pgbouncer && return
    install_packages pgbouncer || true
    have_pgbouncer || say "PgBouncer is missing, which some tests start: install pgbouncer, or name its program in" \
        "HOLDFAST_TEST_PGBOUNCER"
}

have_pip() {
    have python3 &&
        python3 -c 'import importlib.util as i, sys; sys.exit(i.find_spec("pip") is None)'
}

set_up_python() {
    have_pip && return
    install_packages "$(package_name python python3 python3 python python3)" \
        "$(package_name python python3-pip python3-pip python-pip py3-pip)" || true
    have_pip || fail "Python 3 with pip is missing: install python3-pip"
}

have_node() {
    have node && have npm && is_at_least "$(node --version | sed 's/^v//')" 18
}

set_up_node() {
    have_node && return
    install_packages "$(package_name node nodejs nodejs nodejs nodejs)" \
        "$(package_name node npm npm npm npm)" || true
    have_node || fail "Node 18 or later with npm is missing: install nodejs and npm"
}

set_up_rust
set_up_c_compiler
set_up_postgres
set_up_pgbouncer
for extra in "$@"; do
    case $extra in
    python) set_up_python ;;
    node) set_up_node ;;
    *) fail "usage: scripts/setup.sh [python] [node]" ;;
    esac
done
