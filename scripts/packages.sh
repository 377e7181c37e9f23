#!/bin/sh
# Makes the packages of the clients in clients/ in target/packages, and tries the one for Node in a folder of its own.
#
# usage: scripts/packages.sh [--quick] [python | node]     one of them, or both; with --quick none is tried

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/lib-node.sh

out=$PWD/target/packages
build_version=1.3.0
hatchling_version=1.27.0

# A wheel and a source distribution.
python_package() {
    tools=$PWD/target/tools/python-build-$build_version-$hatchling_version
    if [ ! -d "$tools" ]; then
        scripts/setup.sh python
        say "installing build $build_version"
        pip_install "$tools" "build==$build_version" "hatchling==$hatchling_version"
    fi
    PYTHONPATH=$tools python3 -m build --no-isolation --outdir "$out" clients/python >/dev/null
}

# The tarball for npm. Tried by installing it in a folder of its own: imported, required, and compiled against.
node_package() {
    node_install || fail "what the client for Node is built with cannot be installed"
    node_build
    tarball=$(node_pack)
    [ -z "$quick" ] || return 0
    tried=$(mktemp -d)
    (
        cp clients/node/test/package/* "$tried"
        cd "$tried"
        npm install --silent --no-progress --prefer-offline --no-audit --no-fund "$out/$tarball"
        node import.mjs && node require.cjs
    ) || fail "the package $tarball cannot be used; it was tried in $tried"
    "$node_tools/node_modules/.bin/tsc" -p "$tried" --typeRoots "$PWD/$node_tools/node_modules/@types" ||
        fail "the types of $tarball cannot be used; they were tried in $tried"
    rm -rf "$tried"
}

quick=
[ "${1:-}" != --quick ] || { quick=1 && shift; }
mkdir -p "$out"
case ${1:-both} in
both)
    python_package
    node_package
    ;;
python) python_package ;;
node) node_package ;;
*) fail "usage: scripts/packages.sh [--quick] [python | node]" ;;
esac
ls "$out"
