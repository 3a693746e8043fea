#!/usr/bin/env bash
# run.sh TARGET [SECONDS]: looks for new cases of a fuzz target (parse, pipeline, icmp), with the stable toolchain. Starts
# from the corpus; new cases go to target/fuzz/TARGET, one that fails to target/fuzz/TARGET-crash-*.
set -euo pipefail

cd "$(dirname "$0")/../.."
target=${1:?which target? parse, pipeline or icmp}
seconds=${2:-60}
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
coverage+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table'
# A target is named, so that the flags are not those of build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$coverage -Cdebug-assertions" cargo build --release --target "$host" --target-dir target/fuzz/build \
    --package pointsman-fuzz --features libfuzzer --bin "$target"
mkdir -p "target/fuzz/$target"
"target/fuzz/build/$host/release/$target" -max_total_time="$seconds" -max_len=1024 \
    -artifact_prefix="target/fuzz/$target-" "target/fuzz/$target" "tests/fuzz/corpus/$target"
