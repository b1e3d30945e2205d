#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Whatever is wrong: one clear sentence, a status that is not 0, and nothing left behind.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() { e2e_setup; }
teardown() { nothing_left; }

# refused STATUS PATTERN FLAGS...: one line on stderr that matches, nothing on stdout
refused() {
	local want=$1 pattern=$2 rc=0
	shift 2
	timeout -k 5 90 "$CAISSON" run $E2E_FLAGS "$@" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" || rc=$?
	cat "$BATS_TEST_TMPDIR/err"
	[ "$rc" -eq "$want" ]
	[ ! -s "$BATS_TEST_TMPDIR/out" ]
	[ "$(wc -l <"$BATS_TEST_TMPDIR/err")" -eq 1 ]
	grep -q -- "$pattern" "$BATS_TEST_TMPDIR/err"
}

@test "no such kernel" { refused 125 "/no/such/kernel: No such file" --kernel /no/such/kernel -- true; }
@test "a kernel that is a directory" { refused 125 "not a regular file" --kernel /etc -- true; }
@test "an empty kernel" { : >"$BATS_TEST_TMPDIR/k"; refused 125 "is empty" --kernel "$BATS_TEST_TMPDIR/k" -- true; }
@test "no such initramfs" { refused 125 "No such file" --initrd /no/such/initrd -- true; }
@test "no such root file system" { refused 125 "No such file" --rootfs /no/such/dir -- true; }

@test "a truncated kernel" {
	needs_real
	head -c 100000 "$(kernel_file)" >"$BATS_TEST_TMPDIR/k"
	refused 125 "kernel" --kernel "$BATS_TEST_TMPDIR/k" -- true
}

@test "a foreign kernel" {
	needs_real
	cp /bin/true "$BATS_TEST_TMPDIR/k"
	refused 125 "kernel" --kernel "$BATS_TEST_TMPDIR/k" -- true
	echo "this is a text" >"$BATS_TEST_TMPDIR/k"
	refused 125 "kernel" --kernel "$BATS_TEST_TMPDIR/k" -- true
}

kernel_file() {
	"$CAISSON" doctor --cached --json | python3 -c '
import json, sys
text = next(f["text"] for f in json.load(sys.stdin)["findings"] if f["id"] == "kernel")
print(text[:text.rindex(" (")])'
}

@test "a root file system that is none" {
	head -c 100000 /dev/urandom >"$BATS_TEST_TMPDIR/fs"
	refused 125 "no file system that Caisson knows" --rootfs "$BATS_TEST_TMPDIR/fs" -- true
	: >"$BATS_TEST_TMPDIR/fs"
	refused 125 "no file system that Caisson knows" --rootfs "$BATS_TEST_TMPDIR/fs" -- true
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	refused 125 "neither a directory nor a file" --rootfs "$BATS_TEST_TMPDIR/fifo" -- true
}

@test "a root file system that is an empty directory" {
	mkdir "$BATS_TEST_TMPDIR/empty"
	refused 125 "is empty" --rootfs "$BATS_TEST_TMPDIR/empty" -- true
}

@test "a root file system with the right magic and nothing else" {
	needs_real
	make_erofs_magic "$BATS_TEST_TMPDIR/fs"
	refused 125 "root" --rootfs "$BATS_TEST_TMPDIR/fs" -- true
}

@test "the host's own root directory" { refused 125 "is this host itself" --rootfs / -- true; }

@test "memory too small, too large, or no size" {
	refused 125 "too small" -m 1M -- true
	refused 125 "too small" -m 0 -- true
	refused 125 "more than this host has" -m 1000T -- true
	refused 125 "no size" -m lots -- true
	refused 125 "no size" -m -5G -- true
	refused 125 "no size" -m 12Q -- true
}

@test "CPUs below 1, above 32, or no number" {
	refused 125 "1 to 32" --cpus 0 -- true
	refused 125 "1 to 32" --cpus 33 -- true
	refused 125 "1 to 32" --cpus -1 -- true
	refused 125 "needs a number" --cpus many -- true
	refused 125 "needs a number" --cpus 1x -- true
}

@test "an accelerator or boundary that does not exist" {
	refused 125 "auto, kvm or soft" --accel tcg -- true
	refused 125 "hardware, hypervisor or software" --boundary steel -- true
}

@test "an unmet --boundary says what would satisfy it" {
	refused 125 "--boundary hardware is refused" --accel soft --boundary hardware -- true
	needs_fake
	refused 125 "VT-x" --boundary hardware -- true
}

@test "a boundary that is met is no obstacle" {
	run sandbox --accel soft --boundary software -- true
	[ "$status" -eq 0 ]
}

@test "a command that does not exist in the guest" { refused 127 "no-such-command" -- no-such-command; }
@test "a sentence cannot drive the terminal" {
	run -127 sandbox -- $'\033[31mred'
	[[ $output != *$'\033'* ]]
}

@test "a name that is none" {
	refused 125 "no sandbox name" --name ../x -- true
	refused 125 "no sandbox name" --name "" -- true
	refused 125 "no sandbox name" --name "$(printf 'x%.0s' $(seq 64))" -- true
}

@test "an unknown flag names the nearest one" {
	refused 125 "did you mean --cpus" --cpu 1 -- true
	refused 125 "did you mean --rootfs" --roofts /x -- true
	refused 125 "unknown flag --zzz" --zzz -- true
	refused 125 "unknown flag -Z" -Z -- true
	refused 125 "takes no value" --rm=yes -- true
	refused 125 "needs a value" --cpus
}

@test "what contradicts itself or names nothing" {
	refused 125 "HOST:GUEST" -v /a -- true
	refused 125 "absolute path" -v a:b -- true
	refused 125 "shares this host's network" --network host -- true
	refused 125 "microvm or container" --engine vm -- true
	refused 125 "--trust trusted" --engine container -- true
	refused 125 "--trust trusted" --engine container --trust hostile -- true
	refused 125 "boundary is 'namespace'" --engine container --trust trusted --boundary software -- true
	refused 125 "no kernel of its own" --engine container --trust trusted --kernel /boot/x -- true
	refused 125 "no accelerator" --engine container --trust trusted --accel kvm -- true
	refused 125 "no signal" --stop-signal NONE -- true
	refused 125 "64M to 16T" --disk 1M -- true
}

@test "nothing to run" { refused 125 "nothing to run"; }
@test "a relative working directory" { refused 125 "absolute" -w tmp -- true; }
@test "a kernel command line that is too long" { refused 125 "too long" --append "$(printf 'x%.0s' $(seq 3000))" -- true; }

@test "-it without a terminal" { refused 125 "needs a terminal" -it -- true </dev/null; }

@test "a monitor that refuses, dies, restarts, or talks nonsense" {
	needs_fake
	refused 125 "the kernel is truncated" --append fake.refuse -- true
	refused 125 "killed by signal 9" --append fake.die -- sleep 60
	refused 125 "restarted itself" --append fake.reset -- sleep 60
	refused 125 "agent" --append fake.garbage -- sleep 60
}

@test "a guest that panics: the reason, the last kernel lines, 125" {
	if [ "$E2E_ENGINE" = fake ]; then
		run sandbox --append fake.panic -- sleep 60
	else
		run sandbox -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60'
	fi
	[ "$status" -eq 125 ]
	[[ ${lines[0]} == *"kernel panicked"* ]]
	[[ $output == *"Kernel panic - not syncing"* ]]
	[[ $output != *$'\033'* ]]
}

@test "a guest without an init: its console, the reason, 125" {
	needs_real
	run sandbox --console --append "ignore_loglevel rdinit=/none init=/none"
	[ "$status" -eq 125 ]
	[[ $output == *"Linux version"*"Kernel panic"* ]]
	[[ $output != *"last console lines"* ]]
}

@test "an initramfs that is none" {
	needs_real
	echo "no archive" >"$BATS_TEST_TMPDIR/i"
	run sandbox --initrd "$BATS_TEST_TMPDIR/i" -- true
	[ "$status" -eq 125 ]
	[[ ${lines[0]} == *"kernel panicked"* ]]
}

@test "a guest that powers itself off" {
	needs_real
	run sandbox -- sh -c 'poweroff -f; sleep 60'
	[ "$status" -eq 125 ]
	[[ $output == *"powered itself off"* ]]
}

@test "an interrupt while the guest boots" {
	if [ "$E2E_ENGINE" = fake ]; then set -- --append fake.deaf; else set --; fi
	"$CAISSON" run $E2E_FLAGS "$@" -- sleep 60 3>&- &
	pid=$!
	sleep 0.15
	kill -TERM "$pid"
	rc=0
	wait "$pid" || rc=$?
	[ "$rc" -eq 143 ]
}

@test "no monitor to be found" {
	CAISSON_LIBEXEC=/no/such/dir refused 125 "caisson-vmm" -- true
}

@test "a root directory that is a link or a file" {
	ln -s /tmp "$BATS_TEST_TMPDIR/link"
	CAISSON_ROOT=$BATS_TEST_TMPDIR/link refused 125 "root directory" -- true
	: >"$BATS_TEST_TMPDIR/file"
	CAISSON_ROOT=$BATS_TEST_TMPDIR/file refused 125 "root directory" -- true
}

@test "unknown commands" {
	run "$CAISSON" rnu
	[ "$status" -eq 125 ]
	[[ $output == *"did you mean 'run'"* ]]
	run "$CAISSON" frobnicate
	[ "$status" -eq 125 ]
	run "$CAISSON"
	[ "$status" -eq 125 ]
}
