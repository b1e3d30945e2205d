#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Lint that costs seconds: shell syntax, licence lines, tabs, file lengths.
set -eu -o pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
bad=0
complain() { echo "lint: $*" >&2; bad=1; }

files=$(git ls-files 2>/dev/null) || files=$(find . -type f -not -path './build*' -not -path './.git/*' | sed 's,^\./,,')
for f in $files; do
	[ -f "$f" ] || continue
	case $f in
	*.c | *.h | *.S | *.sh | *.py | *.config | .ci/run)
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || complain "$f: no SPDX line"
		;;
	esac
	case $f in
	*.sh | .ci/run) bash -n "$f" || complain "$f: syntax" ;;
	*.c | *.h)
		! grep -nE '[[:blank:]]+$' "$f" | head -n 1 | grep -q . || complain "$f: blanks at a line's end"
		lines=$(wc -l <"$f")
		[ "$lines" -le 1000 ] || complain "$f: $lines lines; look for the second subject"
		;;
	esac
done
[ $bad = 0 ] && echo "lint: ok"
exit $bad
