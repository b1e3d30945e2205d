#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make fuzz`: builds the fuzz targets with clang's libFuzzer, ASan and UBSan, and runs each for FUZZ_SECONDS (60) on its corpus. New
# inputs are kept in BUILD/fuzz-corpus/NAME; a crash leaves its input in BUILD/fuzz-crashes and makes the status non-zero.
#
#   fuzz.sh [NAME...]             fuzz
#   fuzz.sh --minimise [NAME...]  add to tests/fuzz/corpus what the inputs found so far cover beyond it, and nothing else
set -eu -o pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
seconds=${FUZZ_SECONDS:-60}

minimise=
[ "${1:-}" != --minimise ] || { minimise=1; shift; }
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

scripts/packages.sh install build check
command -v clang >/dev/null || scripts/packages.sh install long
dir=$BUILD/fuzz
[ -e "$dir/build.ninja" ] ||
	CC=clang meson setup "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=2 >/dev/null
ninja -C "$dir" fuzzers >/dev/null

mkdir -p "$BUILD/fuzz-crashes"
status=0
for target in "$dir"/tests/fuzz/libfuzzer_*; do
	[ -x "$target" ] && [ -f "$target" ] || continue
	name=${target##*/libfuzzer_}
	[ $# = 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
	mkdir -p "$BUILD/fuzz-corpus/$name"
	seeds=tests/fuzz/corpus/$name
	if [ "$minimise" ]; then
		mkdir -p "$seeds"
		"$target" -merge=1 -use_counters=0 -max_len=4096 "$seeds" "$BUILD/fuzz-corpus/$name" >"$BUILD/fuzz-$name.log" 2>&1
		printf '%-24s %s inputs, %s KiB\n' "$name" "$(find "$seeds" -type f | wc -l)" "$(du -ks --apparent-size "$seeds" | cut -f1)"
		continue
	fi
	[ -d "$seeds" ] || seeds=
	if "$target" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$BUILD/fuzz-crashes/$name-" \
		"$BUILD/fuzz-corpus/$name" $seeds >"$BUILD/fuzz-$name.log" 2>&1; then
		result=ok
	else
		result=FAILED status=1
	fi
	printf '%-24s %s  %s executions in %s s  %s\n' "$name" "$result" \
		"$(sed -n 's/^stat::number_of_executed_units: *//p' "$BUILD/fuzz-$name.log")" \
		"$(sed -n 's/^Done .* runs in \([0-9]*\) second.*/\1/p' "$BUILD/fuzz-$name.log")" \
		"$(grep -o 'cov: [0-9]* ft: [0-9]*' "$BUILD/fuzz-$name.log" | tail -n 1)"
done
exit $status
