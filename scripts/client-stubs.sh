#!/bin/sh
# Makes what the clients in clients/ have of the contract: stubs, and copies of the service config.
#
# usage: scripts/client-stubs.sh            writes them
#        scripts/client-stubs.sh --check    fails when they are not what the contract makes

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/lib-node.sh

grpcio_tools=1.76.0
mypy_protobuf=3.7.0
python_dir=clients/python/src/holdfast_client

python_stubs() {
    tools=target/tools/client-stubs-$grpcio_tools-$mypy_protobuf
    if [ ! -d "$tools" ]; then
        scripts/setup.sh python
        say "installing grpcio-tools $grpcio_tools"
        pip_install "$tools" "grpcio-tools==$grpcio_tools" "mypy-protobuf==$mypy_protobuf" "setuptools<81"
    fi
    PYTHONPATH=$PWD/$tools PATH=$PWD/$tools/bin:$PATH PYTHONDONTWRITEBYTECODE=1 \
        python3 clients/python/tools/stubs.py "$1/$python_dir"
    cp clients/service_config.json "$1/$python_dir/service_config.json"
}

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
    # Annotations are for gateways, and error details are read by src/details.ts.
    rm -r "$stubs/google/api" "$stubs/google/protobuf/descriptor.ts" "$stubs/google/rpc/error_details.ts"
    {
        echo "// Made of clients/service_config.json by scripts/client-stubs.sh. Do not edit."
        echo
        printf 'export const SERVICE_CONFIG = '
        sed '$ s/$/;/' clients/service_config.json
    } >"$stubs/service_config.ts"
}

case ${1:-} in
"")
    python_stubs .
    node_stubs .
    ;;
--check)
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    mkdir -p "$made/$python_dir"
    python_stubs "$made"
    for path in _proto _methods_sync.py service_config.json; do
        diff -r -x __pycache__ "$made/$python_dir/$path" "$python_dir/$path" >&2 ||
            fail "the Python client's files are not current: run make client-stubs"
    done
    node_stubs "$made"
    diff -r "$made/$node_stubs_dir" "$node_stubs_dir" >&2 ||
        fail "the stubs for Node are not current: run make client-stubs"
    ;;
*) fail "usage: scripts/client-stubs.sh [--check]" ;;
esac
