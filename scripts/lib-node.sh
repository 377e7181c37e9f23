# shellcheck shell=sh
# What the scripts for the client in clients/node share. Sourced after lib.sh.

node_dir=clients/node
# One directory for each list of dependencies, so that a change of it is seen.
node_tools=target/tools/client-node-$(cat $node_dir/package.json $node_dir/package-lock.json | cksum | cut -d ' ' -f 1)
# Where the client is built: nothing is written beside the sources.
node_build=target/client-node

# Installs what building and testing takes, in the versions of package-lock.json.
node_install() {
    [ -d "$node_tools" ] && return
    scripts/setup.sh node || return
    say "installing what the client for Node is built and tested with"
    # Beside its place, so that an interrupted installation is not taken for one.
    rm -rf "$node_tools.new"
    mkdir -p "$node_tools.new"
    cp $node_dir/package.json $node_dir/package-lock.json $node_dir/.npmrc "$node_tools.new"
    (cd "$node_tools.new" && npm ci --ignore-scripts --no-progress --silent) || return
    mv "$node_tools.new" "$node_tools"
}

# Builds the package, and its tests with the word "test".
node_build() {
    rm -rf "$node_build"
    mkdir -p "$node_build"
    for name in src test package.json tsconfig.json tsconfig.cjs.json tsconfig.test.json README.md LICENSE; do
        cp -R "$node_dir/$name" "$node_build/$name"
    done
    ln -s "../../$node_tools/node_modules" "$node_build/node_modules"
    # The two formats at the same time: each takes a processor half a minute.
    (cd "$node_build" && npm run --silent build:cjs) &
    cjs=$!
    (cd "$node_build" && npm run --silent build:esm)
    wait $cjs
    [ "${1:-}" != test ] || (cd "$node_build" && npm run --silent build:test)
}

# Makes the tarball for npm of what is built, in target/packages. Prints its name.
node_pack() {
    mkdir -p target/packages
    rm -f target/packages/holdfast-client-*.tgz
    (cd "$node_build" && npm pack --silent --pack-destination ../packages)
}
