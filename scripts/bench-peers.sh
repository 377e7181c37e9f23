#!/bin/sh
# Installs what `make bench` compares Holdfast with, beyond Postgres: etcd and graphile-worker, under
# target/bench/peers/ where that can be. Nothing is started, and no service of the system's is added.
#
# usage: scripts/bench-peers.sh

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

dir=target/bench/peers
missing=

have_etcd() {
    have etcd || [ -x "$dir/etcd/usr/bin/etcd" ]
}

# Unpacks Debian's package instead of installing it, which would start a service.
unpack_etcd() {
    have apt-get && have dpkg-deb || return 1
    download=$(mktemp -d)
    say "downloading etcd-server"
    # As root, apt hands downloads to a user of its own, who cannot write here; that is only a warning.
    if (cd "$download" && apt-get download -q etcd-server >/dev/null 2>&1) ||
        { as_root apt-get update -q >/dev/null 2>&1 &&
            (cd "$download" && apt-get download -q etcd-server >/dev/null 2>&1); }; then
        rm -rf "$dir/etcd"
        mkdir -p "$dir/etcd"
        dpkg-deb -x "$download"/etcd-server_*.deb "$dir/etcd"
    fi
    rm -rf "$download"
    have_etcd
}

set_up_etcd() {
    have_etcd && return
    unpack_etcd && return
    install_packages "$(package_name etcd etcd-server etcd etcd etcd)" && have_etcd && return
    missing="$missing etcd"
}

set_up_node() {
    have node && have npm && return
    install_packages "$(package_name node nodejs nodejs nodejs nodejs)" \
        "$(package_name node npm npm npm npm)" || true
    have node && have npm
}

set_up_graphile_worker() {
    place=$dir/graphile-worker
    list=crates/bench/graphile/package.json
    [ -d "$place/node_modules/graphile-worker" ] && cmp -s "$list" "$place/package.json" && return
    if set_up_node; then
        say "installing graphile-worker"
        # Beside its place, so that an interrupted installation is not taken for one.
        rm -rf "$place.new" "$place"
        mkdir -p "$place.new"
        cp "$list" "$place.new/"
        (cd "$place.new" && npm install --no-audit --no-fund --no-package-lock --silent >&2) &&
            mv "$place.new" "$place" && return
    fi
    missing="$missing graphile-worker"
}

mkdir -p "$dir"
set_up_etcd
set_up_graphile_worker
[ -z "$missing" ] || fail "these cannot be installed:$missing. make bench does without them, and says so"
