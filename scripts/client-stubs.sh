#!/bin/sh
# Makes what the clients in clients/ have of the contract: stubs, and copies of the service config.
#
# usage: scripts/client-stubs.sh            writes them
#        scripts/client-stubs.sh --check    fails when they are not what the contract makes

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/lib-node.sh

node_stubs_dir=$node_dir/src/stubs

# Writes the stubs for Node into the same place below directory $1.
node_stubs() {
    node_install || fail "what makes the stubs for Node cannot be installed"
    stubs=$1/$node_stubs_dir
    mkdir -p "$stubs"
    template=$(mktemp)
    sed "s|PLUGIN|$PWD/$node_tools/node_modules/ts-proto/protoc-gen-ts_proto|" $node_dir/buf.gen.yaml >"$template"
    mv "$template" "$template.yaml"
    scripts/buf.sh generate --template "$template.yaml" --output "$1"
    rm "$template.yaml"
    {
        echo "// Made of clients/service_config.json by scripts/client-stubs.sh. Do not edit."
        echo
        printf 'export const SERVICE_CONFIG = '
        sed '$ s/$/;/' clients/service_config.json
    } >"$stubs/service_config.ts"
}

case ${1:-} in
"") node_stubs . ;;
--check)
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    node_stubs "$made"
    diff -r "$made/$node_stubs_dir" "$node_stubs_dir" >&2 ||
        fail "the stubs for Node are not current: run make client-stubs"
    ;;
*) fail "usage: scripts/client-stubs.sh [--check]" ;;
esac
