#!/bin/sh
# Finds changes of the contract that break its callers: against the last tag, or where there is none against
# clients/contract.binpb.
#
# usage: scripts/breaking.sh            fails when there are any
#        scripts/breaking.sh --accept   takes the contract as it is for what callers have

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

image=clients/contract.binpb

case ${1:-} in
--accept)
    scripts/buf.sh build --exclude-source-info --path proto/holdfast --output "$image"
    ;;
"")
    tag=$(git tag --list --sort=-creatordate 'v*' | head -n 1)
    if [ -n "$tag" ]; then
        scripts/buf.sh breaking --against ".git#tag=$tag"
    else
        scripts/buf.sh breaking --against "$image"
    fi
    ;;
*) fail "usage: scripts/breaking.sh [--accept]" ;;
esac
