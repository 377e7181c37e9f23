#!/bin/sh
# Makes the packages of the clients in clients/, and tries them as a stranger to the project would.
#
# usage: scripts/packages.sh

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/lib-node.sh

out=target/packages
mkdir -p "$out"

# The tarball for npm. Tried by installing it in a folder of its own: imported, required, and compiled against.
node_package() {
    node_install || fail "what the client for Node is built with cannot be installed"
    node_build
    tarball=$(node_pack)
    tried=$(mktemp -d)
    (
        cp clients/node/test/package/* "$tried"
        cd "$tried"
        npm install --silent --no-progress --prefer-offline --no-audit --no-fund "$OLDPWD/$out/$tarball"
        node import.mjs && node require.cjs
    ) || fail "the package $tarball cannot be used; it was tried in $tried"
    "$node_tools/node_modules/.bin/tsc" -p "$tried" --typeRoots "$PWD/$node_tools/node_modules/@types" ||
        fail "the types of $tarball cannot be used; they were tried in $tried"
    rm -rf "$tried"
    say "made $out/$tarball"
}

node_package
