#!/bin/sh
# Runs the suite of the Python client, against its fake and against a real server.
#
# usage: scripts/client-python.sh [--if-possible | --install]
#
# The server is the build in target/debug, or HOLDFAST_BINARY.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

requirements=clients/python/tests/requirements.txt
dir=$PWD/target/tools/client-python-$(cksum <"$requirements" | cut -d ' ' -f 1)

install_needed() {
    [ -d "$dir" ] && return
    scripts/setup.sh python || return
    say "installing what the tests of the Python client need"
    pip_install "$dir" --requirement "$requirements"
}

have python3 && install_needed || {
    [ "${1:-}" = --if-possible ] || fail "what the tests of the Python client need cannot be installed"
    say "SKIPPED: the tests of the Python client, because what they need cannot be installed"
    exit 0
}
[ "${1:-}" != --install ] || exit 0

scripts/client-stubs.sh --check
export HOLDFAST_BINARY="${HOLDFAST_BINARY:-${CARGO_TARGET_DIR:-$PWD/target}/debug/holdfast}"
[ -x "$HOLDFAST_BINARY" ] || cargo build --quiet
cd clients/python
export PYTHONPATH="src:$dir" PYTHONDONTWRITEBYTECODE=1
python3 -m mypy --cache-dir "$dir/mypy-cache"
python3 -m pytest -q -p no:cacheprovider -p no:asyncio tests
