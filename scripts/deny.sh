#!/bin/sh
# Checks what the program depends on, by deny.toml: licences, crates that are banned, sources, and known weaknesses.
# Installs cargo-deny under target/ the first time.
#
# The database of weaknesses is fetched from GitHub. Where it cannot be, that is said, and the rest is checked.
#
# usage: scripts/deny.sh

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=0.20.2
dir=target/tools/cargo-deny-$version

if [ ! -x "$dir/bin/cargo-deny" ]; then
    say "installing cargo-deny $version"
    install_cargo_tool "$dir" cargo-deny "$version" || fail "cargo-deny cannot be installed"
fi
PATH=$PWD/$dir/bin:$PATH

cargo deny --locked check bans licenses sources || fail "a dependency is not what deny.toml allows"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if cargo deny fetch db >"$log" 2>&1; then
    cargo deny --locked check --disable-fetch advisories || fail "a dependency has a known weakness"
else
    grep . "$log" | tail -n 3 >&2
    say "advisories were NOT checked: the database of weaknesses cannot be fetched (above). Run \"make deny\" where it can"
fi
