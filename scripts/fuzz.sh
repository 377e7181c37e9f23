#!/bin/sh
# Runs the targets of fuzz/ one after the other with libFuzzer, each for a while, and installs cargo-fuzz under target/
# the first time. What it makes up is kept under target/, with what it finds; fuzz/corpus/ is only read.
#
# usage: [SECONDS_EACH=120] [TARGET=jwt] scripts/fuzz.sh
#        INPUT=file TARGET=jwt scripts/fuzz.sh     runs one input again

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=0.13.2
dir=target/tools/cargo-fuzz-$version
kept=target/fuzz-corpus
crashes=target/fuzz-artifacts
seconds=${SECONDS_EACH:-120}
# A target that takes longer for one input, or more memory, is as bad as one that panics.
limits="-timeout=20 -rss_limit_mb=2048 -max_len=65536"

have cc && have c++ || fail "a C++ compiler is missing, which libFuzzer is built with: install g++ or clang"
if [ ! -x "$dir/bin/cargo-fuzz" ]; then
    say "installing cargo-fuzz $version"
    install_cargo_tool "$dir" cargo-fuzz "$version" || fail "cargo-fuzz cannot be installed"
fi
PATH=$PWD/$dir/bin:$PATH

targets=$(ls fuzz/corpus)
if [ -n "${TARGET:-}" ]; then
    [ -d "fuzz/corpus/$TARGET" ] || fail "there is no target $TARGET; there are:" $targets
    targets=$TARGET
fi

# The same versions as the program's. Cargo adds libFuzzer to them.
cp Cargo.lock fuzz/Cargo.lock
# Sanitizers and coverage are not stable features. This way they are had from the compiler that builds the program.
export RUSTC_BOOTSTRAP=1
# `cargo fuzz` has no --quiet.
export CARGO_TERM_QUIET=true

cargo_fuzz() {
    command=$1
    shift
    cargo fuzz "$command" --fuzz-dir fuzz --target-dir target/fuzz "$@"
}

say "building (some minutes the first time)"
cargo_fuzz build 2>&1 || fail "the targets do not build"

if [ -n "${INPUT:-}" ]; then
    [ -n "${TARGET:-}" ] || fail "name the target of the input: TARGET=…"
    cargo_fuzz run "$TARGET" "$INPUT" -- $limits
    say "the target $TARGET does not fail on $INPUT"
    exit 0
fi

for target in $targets; do
    mkdir -p "$kept/$target" "$crashes/$target"
    log=$crashes/$target.log
    say "$target, for $seconds s"
    # The first folder takes what is found; the second is only read.
    if ! cargo_fuzz run "$target" "$kept/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -artifact_prefix="$crashes/$target/" -print_final_stats=1 $limits \
        >"$log" 2>&1; then
        sed -n '/panicked at/,/^note:/p; /^==.*ERROR/p; /Test unit written to/p' "$log" | head -n 30 >&2
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        [ -n "$input" ] || { tail -n 30 "$log" >&2; fail "the target $target could not be run; see $log"; }
        say "error: the target $target fails on an input that was made up. It is in $input, all that was said in $log."
        say "Run it again with: make fuzz TARGET=$target INPUT=$input"
        say "When it is mended, copy the input to fuzz/corpus/$target/ under a name that says what it is."
        exit 1
    fi
    sed -n 's/^stat::number_of_executed_units: *\([0-9]*\)/    \1 inputs, and nothing was found/p' "$log" >&2
done
