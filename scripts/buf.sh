#!/bin/sh
# Runs buf, which checks and formats the .proto files; installs it under target/ the first time.
#
# usage: scripts/buf.sh lint, scripts/buf.sh format -d --exit-code, …

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=1.75.0
dir=target/tools/buf-$version

if [ ! -x "$dir/bin/buf" ]; then
    scripts/setup.sh python
    say "installing buf $version"
    pip_install "$dir" "buf-bin==$version" || fail "buf cannot be installed"
fi
exec "$dir/bin/buf" "$@"
