#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# MicroVMs restored from saved machines: each is a machine of its own, and what is saved is never out of date.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() { e2e_setup; }
teardown() { nothing_left; }

cai() { timeout -k 5 90 "$CAISSON" "$@"; }
levels() { cai template ls --json | python3 -c 'import json, sys; print(sorted(t["level"] for t in json.load(sys.stdin)))'; }
generations() { cai template ls -q | cut -d- -f1 | sort -u | wc -l; }

@test "the first run saves a machine, the next ones are restored from it" {
	[ "$(levels)" = "[]" ]
	[ "$(sandbox -- echo one)" = one ]
	[[ $(levels) == *base* ]]
	saved=$(cai template ls -q)
	[ "$(sandbox -- echo two)" = two ]
	[ "$(cai template ls -q)" = "$saved" ]
	run bash -c 'CAISSON_DEBUG=1 timeout 90 "$CAISSON" run $E2E_FLAGS -- true 2>&1'
	[ "$status" -eq 0 ]
	[[ $output != *"the machine boots"* ]]
}

@test "two sandboxes of one template share no secret, no name, no address, and know the time" {
	for i in 1 2; do
		sandbox --name "twin$i" -- sh -c 'head -c 32 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid; hostname; ip -o -4 addr show eth0 | grep -o "inet [^ ]*"; cat /sys/class/net/eth0/address' \
			>"$BATS_TEST_TMPDIR/$i" 3>&- &
	done
	wait
	paste -d '|' "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/2"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/1")" -eq 5 ]
	[ "$(paste -d '|' "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/2" | awk -F'|' '$1 == $2')" = "" ]
	before=$(date +%s)
	now=$(sandbox -- date +%s)
	after=$(date +%s)
	[ "$now" -ge "$((before - 1))" ]
	[ "$now" -le "$((after + 1))" ]
}

@test "another shape is another machine" {
	[ "$(sandbox --cpus 2 -m 256M -- sh -c 'nproc; [ $(awk "/MemTotal/ {print \$2}" /proc/meminfo) -lt 262144 ] && echo small')" = $'2\nsmall' ]
	[ "$(sandbox --network none -- ls /sys/class/net)" = lo ]
	[ "$(sandbox --ephemeral -- echo e)" = e ]
}

@test "a new monitor makes old templates stale, and they go" {
	sandbox -- true
	touch "$CAISSON_LIBEXEC/caisson-vmm"
	[ "$(sandbox -- echo three)" = three ]
	[ "$(generations)" = 1 ]
}

@test "a damaged template is refused with the part that is wrong, and made anew by the next run" {
	sandbox -- true
	for t in "$CAISSON_ROOT"/templates/*-*/; do printf 'x' | dd of="$t/state" bs=1 seek=200 conv=notrunc 2>/dev/null; done
	run sandbox -- echo fine
	[ "$status" -eq 125 ]
	[[ $output == *snapshot* ]]
	[ "$(sandbox -- echo fine)" = fine ]
}

@test "what is started again keeps its disk, and is restored from another template than what is new" {
	cai run -d --name kept -- sleep 1000
	cai exec kept sh -c 'echo one >/root/kept; rm /bin/vi'
	[[ $(levels) == *disk* && $(levels) != *image* ]]
	for word in two three; do
		cai stop -t 1 kept
		cai start kept
		cai exec kept sh -c "echo $word >>/root/kept"
	done
	[[ $(levels) == *image* ]]
	[ "$(cai exec kept sh -c 'cat /root/kept; [ -e /bin/vi ] || echo gone; dmesg | grep -ci "ext4.*error"' || true)" = $'one\ntwo\nthree\ngone\n0' ]
	cai rm -f kept
	[ "$(sandbox -- sh -c 'ls /root; ls /bin/vi')" = /bin/vi ]
}

@test "--cold boots" {
	run bash -c 'CAISSON_DEBUG=1 timeout 90 "$CAISSON" run --cold $E2E_FLAGS -- echo cold 2>&1'
	[[ $output == *"the machine boots"* ]]
	[[ $output == *cold* ]]
}

@test "template commands: build, ls, inspect, rm, and what is none" {
	run cai template build --warm 'cat /etc/passwd'
	[ "$status" -eq 0 ] || skip "the agent cannot prepare an image yet"
	[[ $(levels) == *disk* ]]
	cai template ls | grep -q built-in
	name=$(cai template ls -q | head -n 1)
	[ "$(cai template inspect "${name#*-}" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["name"])')" = "$name" ]
	cai template rm "$name"
	run cai template rm "$name"
	[ "$status" -eq 1 ]
	run cai template inspect none-such
	[ "$status" -eq 1 ]
	run cai template frobnicate
	[ "$status" -eq 125 ]
}
