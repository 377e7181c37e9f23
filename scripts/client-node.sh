#!/bin/sh
# Builds the client for Node, and runs its tests against its fake and against a real server, which is built already.
#
# usage: scripts/client-node.sh                 runs them
#        scripts/client-node.sh --if-possible   the same, or says why not: Node cannot be had
#        scripts/client-node.sh --install       installs what is needed, and no more

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/lib-node.sh

case ${1:-} in
"" | --install | --if-possible) ;;
*) fail "usage: scripts/client-node.sh [--if-possible | --install]" ;;
esac

skip() {
    [ "${1:-}" = --if-possible ] || fail "the client for Node cannot be tested: $2"
    say "SKIPPED: the tests of the client for Node, because $2"
    exit 0
}

if [ "${1:-}" = --if-possible ]; then
    have node && have npm || skip --if-possible "node or npm is missing"
    [ "$(node --version | sed 's/^v\([0-9]*\).*/\1/')" -ge 18 ] || skip --if-possible "node is older than 18"
fi
node_install || skip "${1:-}" "what it needs cannot be installed"
[ "${1:-}" != --install ] || exit 0

node_build test
# For the sessions of pages that install it.
node_pack >/dev/null
export HOLDFAST_BIN="${CARGO_TARGET_DIR:-$PWD/target}/debug/holdfast" HOLDFAST_PROJECT="$PWD"
node --test --test-timeout=120000 $node_build/dist/test/
