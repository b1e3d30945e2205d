#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make check`: every quick test; with --long the suite `long` too. Unit tests run under AddressSanitizer and UBSan, from a build of
# their own; the others run the programs as they are installed. The last line is "N passed, N failed, N skipped"; the exit status
# is 0 only when nothing failed. A test that needs what this host lacks exits 77 and says why.
#
# Environment: BUILD (build).
set -eu -o pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
long=
[ "${1:-}" != --long ] || long=1
jobs=$(nproc)

scripts/packages.sh install build check ${long:+long}
mkdir -p "$BUILD"
kernel/build.sh "$BUILD"
make --no-print-directory BUILD="$BUILD" "$BUILD/build.ninja"
meson introspect "$BUILD" --buildoptions | python3 -c '
import json, sys
sys.exit(not next(o["value"] for o in json.load(sys.stdin) if o["name"] == "tests"))' || meson configure "$BUILD" -Dtests=true
ninja -C "$BUILD"

sanitized=$BUILD/sanitized
if [ ! -e "$sanitized/build.ninja" ]; then
	meson setup "$sanitized" -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 >/dev/null
fi
ninja -C "$sanitized"

# ASan reserves address space, not memory; halting on UBSan makes a report a failure.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export CAISSON_KERNEL=$PWD/$BUILD/kernel/vmlinux
status=0
run() { # BUILD_DIR SUITE...
	local dir=$1 suites=()
	shift
	for s in "$@"; do suites+=(--suite "$s"); done
	rm -f "$dir/meson-logs/testlog.json"
	meson test -C "$dir" --no-rebuild --print-errorlogs --num-processes "$jobs" "${suites[@]}" || status=1
	[ ! -f "$dir/meson-logs/testlog.json" ] || cat "$dir/meson-logs/testlog.json" >>"$results"
}
results=$(mktemp)
trap 'rm -f "$results"' EXIT
run "$sanitized" unit fuzz
run "$BUILD" layout cpu boot security net e2e
[ -z "$long" ] || run "$BUILD" long

python3 scripts/count_tests.py "$results" "$status"
