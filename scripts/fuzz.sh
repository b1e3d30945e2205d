#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make fuzz`: builds the fuzz targets with clang's libFuzzer, ASan and UBSan, and runs each for FUZZ_SECONDS (60) on its corpus. New
# inputs are kept in BUILD/fuzz-corpus/NAME; a crash leaves its input in BUILD/fuzz-crashes and makes the status non-zero.
#
#   fuzz.sh [NAME...]
set -eu -o pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
seconds=${FUZZ_SECONDS:-60}

scripts/packages.sh install build check
command -v clang >/dev/null || scripts/packages.sh install long
dir=$BUILD/fuzz
[ -e "$dir/build.ninja" ] ||
	CC=clang meson setup "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=2 >/dev/null
ninja -C "$dir" >/dev/null

mkdir -p "$BUILD/fuzz-crashes"
status=0
for target in "$dir"/tests/fuzz/libfuzzer_*; do
	[ -x "$target" ] && [ -f "$target" ] || continue
	name=${target##*/libfuzzer_}
	[ $# = 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
	mkdir -p "$BUILD/fuzz-corpus/$name"
	seeds=tests/fuzz/corpus/$name
	[ -d "$seeds" ] || seeds=
	if "$target" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$BUILD/fuzz-crashes/$name-" \
		"$BUILD/fuzz-corpus/$name" $seeds >"$BUILD/fuzz-$name.log" 2>&1; then
		result=ok
	else
		result=FAILED status=1
	fi
	printf '%-24s %s  %s executions  cov %s\n' "$name" "$result" \
		"$(sed -n 's/^stat::number_of_executed_units: *//p' "$BUILD/fuzz-$name.log")" \
		"$(grep -o 'cov: [0-9]*' "$BUILD/fuzz-$name.log" | tail -n 1 | cut -d' ' -f2)"
done
exit $status
