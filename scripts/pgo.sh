#!/usr/bin/env bash
# A release build whose code is laid out by a recorded profile: an instrumented build serves the benches' statements, then
# everything is compiled once more with what was counted. The program is target/pgo/keyway. Takes two builds and two minutes.
#   scripts/pgo.sh          builds
#   scripts/pgo.sh tool     says which tool merges profiles
# LLVM_PROFDATA names the tool that merges profiles, where it is not found: rustup's component llvm-tools, or LLVM's
# own from version 19 on (Debian: llvm-19).
set -euo pipefail
cd "$(dirname "$0")/.."

find_profdata() {
    local sysroot it
    sysroot=$(rustc --print sysroot)
    for it in "${LLVM_PROFDATA:-}" "$sysroot"/lib/rustlib/*/bin/llvm-profdata; do
        [ -n "$it" ] && command -v "$it" && return
    done
    for it in $(seq 40 -1 19); do
        command -v "llvm-profdata-$it" && return
    done
    it=$(llvm-profdata --version 2>/dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')
    [ "${it:-0}" -ge 19 ] && command -v llvm-profdata && return
    echo "no llvm-profdata: rustup component add llvm-tools, or install LLVM 19 or newer" >&2
    return 1
}

if [ "${1:-}" = tool ]; then
    find_profdata
    exit
fi
profdata=$(find_profdata)
host=$(rustc -vV | sed -n 's/^host: //p')
work=$PWD/target/pgo
raw=$work/raw
rm -rf "$raw"
mkdir -p "$raw"
# Everything is compiled as one, which takes a while and is for what is shipped. Both builds have one profile of cargo's: it
# goes into the names of functions, by which what was recorded is found again.
export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
# With a target named, what runs at build time is not instrumented.
RUSTFLAGS="-Cprofile-generate=$raw" \
    cargo build --release --target "$host" --target-dir "$work/instrumented" --bin keyway
instrumented=$work/instrumented/$host/release/keyway
benches/e2e.py --keyway "$instrumented" --rounds 1 --seconds 3 --clients 1 16 200 --no-extras \
    --targets keyway "keyway, 2 shards" "keyway, 4 shards" "keyway, 2 workers" >/dev/null
benches/transfer.py --keyway "$instrumented" --rounds 1 >/dev/null
"$profdata" merge -o "$work/keyway.profdata" "$raw"
RUSTFLAGS="-Cprofile-use=$work/keyway.profdata" \
    cargo build --release --target "$host" --target-dir "$work/optimised" --bin keyway
names() { nm "$1" | grep -oE '_ZN6keyway[A-Za-z0-9_$.]*17h[0-9a-f]{16}E' | sort -u; }
if [ -z "$(comm -12 <(names "$instrumented") <(names "$work/optimised/$host/release/keyway"))" ]; then
    echo "all functions are called otherwise than where the profile was recorded: it was not used" >&2
    exit 1
fi
cp "$work/optimised/$host/release/keyway" "$work/keyway"
echo "$work/keyway"
