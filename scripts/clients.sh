#!/bin/sh
# Runs the check of tests/clients, a client in another language, against a server that is running;
# installs what it needs under target/ the first time.
#
# usage: scripts/clients.sh [HOST:PORT] [options of check.py]

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

# One directory for each list of requirements, so that a change of it is seen.
requirements=tests/clients/requirements.txt
dir=target/tools/clients-$(cksum <"$requirements" | cut -d ' ' -f 1)

if [ ! -d "$dir" ]; then
    scripts/setup.sh python
    say "installing what the check of the clients needs"
    pip_install "$dir" --requirement "$requirements" || fail "it cannot be installed"
fi

address=127.0.0.1:50051
case ${1:-} in
*:*)
    address=$1
    shift
    ;;
esac
PYTHONPATH=$dir PYTHONDONTWRITEBYTECODE=1 exec python3 tests/clients/check.py "$address" "$@"
