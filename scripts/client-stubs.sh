#!/bin/sh
# Makes what the clients in clients/ have of the contract: stubs, and copies of the service config.
#
# usage: scripts/client-stubs.sh            writes them
#        scripts/client-stubs.sh --check    fails when they are not what the contract makes

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

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

case ${1:-} in
"") python_stubs . ;;
--check)
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    mkdir -p "$made/$python_dir"
    python_stubs "$made"
    for path in _proto _methods_sync.py service_config.json; do
        diff -r -x __pycache__ "$made/$python_dir/$path" "$python_dir/$path" >&2 ||
            fail "the Python client's files are not current: run make client-stubs"
    done
    ;;
*) fail "usage: scripts/client-stubs.sh [--check]" ;;
esac
