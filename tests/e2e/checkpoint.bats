#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Saving running microVMs and going on with them, in new sandboxes and in place.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() { e2e_setup; }
teardown() {
	"$CAISSON" ps -aq | xargs -r "$CAISSON" rm -f >/dev/null
	"$CAISSON" checkpoint ls -q | xargs -r "$CAISSON" checkpoint rm >/dev/null
	nothing_left
	[ -z "$(ls -A "$CAISSON_ROOT/checkpoints" 2>/dev/null)" ]
}

cai() { timeout -k 5 120 "$CAISSON" "$@"; }
get() { "$CAISSON" inspect "$1" | python3 -c "import json, sys; d = json.load(sys.stdin)[0]; print($2)"; }
lines() { "$CAISSON" logs "$1" 2>/dev/null | wc -l; }
at_least() { [ "$(lines "$1")" -ge "$2" ]; }
# Counts up, one number a line, and checks what it holds: memory, an open file that has no name any more, a pipe.
counter='
	echo secret >/root/held; exec 5<>/root/held; rm /root/held
	mkfifo /root/p; exec 6<>/root/p; rm /root/p
	text=$(head -c 20000 /dev/zero | tr "\0" x); sum=$(echo "$text" | md5sum)
	i=0; while :; do
		i=$((i+1)); echo $i >&6; read j <&6
		[ "$j" = $i ] && [ "$(echo "$text" | md5sum)" = "$sum" ] || { echo broken; exit 9; }
		echo $i; sleep 0.05
	done'
start_counter() { # NAME FLAGS...
	timeout 90 "$CAISSON" run --accel soft -d --name "$@" -- sh -c "$counter" >/dev/null
	wait_for at_least "$1" 3
}
# The numbers of a log follow one another; prints the first and the last.
consecutive() {
	"$CAISSON" logs "$1" 2>/dev/null | awk 'NR == 1 { first = $1 } NR > 1 && $1 != last + 1 { print "gap after", last, "at", $1; bad = 1; exit } { last = $1 } END { if (!bad) print first, last; exit bad }'
}

@test "a checkpoint goes on in a new sandbox where it was taken, and the original goes on, too" {
	start_counter c
	cai exec c sh -c 'echo before >/root/file; sync'
	[ "$(cai checkpoint --leave-running c one)" = one ]
	n=$(lines c)
	cai exec c sh -c 'echo after >/root/file'
	wait_for at_least c $((n + 5))
	consecutive c
	id=$(cai restore --name r one)
	[[ $id =~ ^[0-9a-f]{12}$ ]]
	wait_for at_least r 5
	run consecutive r
	[ "$status" -eq 0 ]
	first=${output% *}
	[ "$first" -gt 1 ]
	[ "$first" -le $((n + 2)) ]
	[ "$(cai exec r cat /root/file)" = before ]
	[ "$(cai exec c cat /root/file)" = after ]
	[ "$(cai checkpoint ls -q)" = one ]
	[ "$(cai checkpoint inspect one | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["sandbox_name"])')" = c ]
}

@test "without --leave-running the sandbox ends" {
	start_counter c
	name=$(cai checkpoint c)
	[ "$(get c 'd["status"], d["exit_code"]')" = "exited 137" ]
	cai restore --name r "$name"
	wait_for at_least r 3
	consecutive r
}

@test "copies share no secret, no name, no address, and know the time" {
	start_counter c
	sleep 1.2
	mapfile -t ids < <(cai fork -n 2 c)
	[ "${#ids[@]}" -eq 2 ]
	for id in "${ids[@]}" c; do
		cai exec "$id" sh -c 'head -c 16 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid; hostname; ip -o -4 addr show eth0 | grep -o "inet [^ ]*"; cat /sys/class/net/eth0/address' >"$BATS_TEST_TMPDIR/$id"
		now=$(cai exec "$id" date +%s)
		[ "$((now - $(date +%s)))" -ge -3 ]
		[ "$((now - $(date +%s)))" -le 1 ]
	done
	cat "$BATS_TEST_TMPDIR"/*
	[ "$(cat "$BATS_TEST_TMPDIR/${ids[0]}" "$BATS_TEST_TMPDIR/${ids[1]}" "$BATS_TEST_TMPDIR/c" | sort | uniq -d)" = "" ]
	[ "$(cat "$BATS_TEST_TMPDIR/c" | wc -l)" -eq 5 ]
	for id in "${ids[@]}"; do consecutive "$id"; done
}

@test "suspend and resume: in place, with everything, on the same port" {
	start_counter s -p 8080
	port=$(cai port s)
	cai exec -d s sh -c 'mkdir -p /www; echo served >/www/index.html; exec httpd -f -p 8080 -h /www'
	cai suspend s
	[ "$(get s 'd["status"]')" = suspended ]
	[ -z "$(monitors)" ]
	run cai start s
	[ "$status" -eq 1 ]
	[[ $output == *"caisson resume"* ]]
	n=$(lines s)
	cai resume s
	wait_for at_least s $((n + 3))
	consecutive s
	[ "$(get s 'd["status"]')" = running ]
	[ "$(cai exec s cat /www/index.html)" = served ]
	cai stop -t 1 s
}

@test "rollback goes back in place" {
	start_counter b
	cai exec b sh -c 'echo old >/root/file; sync'
	cai checkpoint -R b back
	cai exec b sh -c 'echo new >/root/file; sync'
	id=$(get b 'd["id"]')
	cai rollback b back
	[ "$(get b 'd["id"]')" = "$id" ]
	[ "$(cai exec b cat /root/file)" = old ]
	start_counter other
	run cai rollback other back
	[ "$status" -eq 1 ]
	[[ $output == *"of another sandbox"* ]]
}

@test "what cannot be saved or restored says so, and loses nothing" {
	start_counter c
	cai checkpoint -R c good
	run cai checkpoint -R c good
	[ "$status" -eq 1 ]
	[[ $output == *"already"* ]]
	run cai checkpoint none-such
	[ "$status" -eq 1 ]
	run cai restore none-such
	[ "$status" -eq 125 ]
	cp -a "$CAISSON_ROOT/checkpoints/good" "$CAISSON_ROOT/checkpoints/bad"
	printf x | dd of="$CAISSON_ROOT/checkpoints/bad/state" bs=1 seek=300 conv=notrunc 2>/dev/null
	run cai restore bad
	[ "$status" -eq 125 ]
	[[ $output == *snapshot* ]]
	truncate -s 1000000 "$CAISSON_ROOT/checkpoints/bad/memory"
	cp "$CAISSON_ROOT/checkpoints/good/state" "$CAISSON_ROOT/checkpoints/bad/state"
	run cai restore bad
	[ "$status" -eq 125 ]
	[[ $output == *"cut short"* ]]
	rm "$CAISSON_ROOT/checkpoints/bad/memory"
	run cai restore bad
	[ "$status" -eq 125 ]
	[ "$(cai ps -aq | wc -l)" -eq 1 ]
	n=$(lines c)
	wait_for at_least c $((n + 3))
	consecutive c
	cai restore --name fine good
	wait_for at_least fine 3
	if [ "$(id -u)" = 0 ]; then
		timeout 90 "$CAISSON" run -d --name box --engine container --trust trusted -- sleep 60 >/dev/null
		run cai checkpoint box
		[ "$status" -eq 1 ]
		[[ $output == *"cannot be saved"* ]]
	fi
}

@test "a checkpoint whose writer is killed is not there, and the next one is whole" {
	for t in 0.01 0.05 0.1; do
		start_counter k
		cai checkpoint -R k half >/dev/null 2>&1 3>&- &
		pid=$!
		sleep $t
		kill -9 "$(get k 'd["runner_pid"]')" || true
		wait $pid || true
		for name in $(cai checkpoint ls -q); do cai restore --name whole "$name" && wait_for at_least whole 2 && cai rm -f whole && cai checkpoint rm "$name"; done
		cai rm -f k
	done
	cai checkpoint ls
	[ -z "$(ls -A "$CAISSON_ROOT/checkpoints")" ]
}
