# SPDX-License-Identifier: Apache-2.0
# Shared by all end-to-end tests. The environment says what is tested:
#   CAISSON      the program
#   E2E_ENGINE   real: the monitor and guest of the build tree; fake: the stand-in monitor, which runs commands on this host
#   E2E_MONITOR  the monitor program to use
#   E2E_FLAGS    flags for every `caisson run`, such as "--cpus 4"

: "${CAISSON:?the program to test}" "${E2E_MONITOR:?the monitor to test with}"
E2E_ENGINE=${E2E_ENGINE:-real}

# Every file of tests has its own root directory, caches and copy of the monitor, so that files can run side by side and what one
# leaves behind can be told from what others do.
e2e_setup_file() {
	export CAISSON_ROOT=$BATS_FILE_TMPDIR/run CAISSON_LIBEXEC=$BATS_FILE_TMPDIR/lib
	export XDG_CACHE_HOME=$BATS_FILE_TMPDIR/cache XDG_STATE_HOME=$BATS_FILE_TMPDIR/state
	mkdir -p "$CAISSON_LIBEXEC"
	cp "$E2E_MONITOR" "$CAISSON_LIBEXEC/caisson-vmm"
	local helper
	for helper in ${E2E_LIBEXEC//:/ }; do ln -s "$helper" "$CAISSON_LIBEXEC/"; done
	if [ "$E2E_ENGINE" = fake ]; then
		export CAISSON_SHARE=$BATS_FILE_TMPDIR/share
		mkdir -p "$CAISSON_SHARE"
		echo stand-in >"$CAISSON_SHARE/vmlinux"
		echo stand-in >"$CAISSON_SHARE/initramfs.cpio"
		echo console=ttyS0 >"$CAISSON_SHARE/cmdline"
		make_erofs_magic "$CAISSON_SHARE/busybox.erofs"
	fi
}

# Skips the test when this host or build tree cannot run the real guest.
e2e_setup() {
	if [ "$E2E_ENGINE" = real ]; then
		local why
		why=$("$CAISSON" doctor --cached | sed -n 's/^missing *\(monitor\|kernel\|cmdline\|initramfs\|image\) *\(.*\)/\2/p' | head -n 1)
		[ -z "$why" ] || skip "$why"
	fi
}

needs_fake() { [ "$E2E_ENGINE" = fake ] || skip "only the stand-in monitor can be told to do this"; }
needs_real() { [ "$E2E_ENGINE" = real ] || skip "needs a real guest"; }

# run with a time limit and without letting the guest's speed matter
sandbox() { timeout -k 5 90 "$CAISSON" run $E2E_FLAGS "$@"; }

# No sandbox directory, no monitor, no temporary file; call at the end of a test. The monitor of a killed runner ends by itself, which
# takes a moment: two seconds are allowed.
nothing_left() {
	local i left
	for i in $(seq 40); do
		left=$(find "$CAISSON_ROOT/sandboxes" -mindepth 1 2>/dev/null; monitors; find "$XDG_CACHE_HOME" -name '.tmp*' 2>/dev/null)
		[ -n "$left" ] || return 0
		sleep 0.05
	done
	echo "left behind: $left"
	return 1
}

# Process ids of this test file's monitors.
monitors() {
	local p
	for p in /proc/[0-9]*; do
		[ "$(readlink "$p/exe" 2>/dev/null)" = "$CAISSON_LIBEXEC/caisson-vmm" ] && echo "${p#/proc/}"
	done
	return 0
}

# Waits until COMMAND succeeds, at most 30 s.
wait_for() {
	local i
	for i in $(seq 600); do
		"$@" && return 0
		sleep 0.05
	done
	echo "still not: $*"
	return 1
}

make_erofs_magic() {
	head -c 1024 /dev/zero >"$1"
	printf '\342\341\365\340' >>"$1"
	head -c 3068 /dev/zero >>"$1"
}
