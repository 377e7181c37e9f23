#!/bin/sh
# Builds the packages of the clients into target/packages.
#
# usage: scripts/packages.sh

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

out=$PWD/target/packages
build_version=1.3.0
hatchling_version=1.27.0

# A wheel and a source distribution.
python_package() {
    tools=$PWD/target/tools/python-build-$build_version-$hatchling_version
    if [ ! -d "$tools" ]; then
        scripts/setup.sh python
        say "installing build $build_version"
        pip_install "$tools" "build==$build_version" "hatchling==$hatchling_version"
    fi
    PYTHONPATH=$tools python3 -m build --no-isolation --outdir "$out" clients/python >/dev/null
}

mkdir -p "$out"
python_package
ls "$out"
