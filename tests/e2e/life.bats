#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The life of a sandbox through every command; one table for both engines. E2E_KIND: microvm or container.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() {
	e2e_setup
	[ "$E2E_KIND" != container ] || [ "$(id -u)" = 0 ] || skip "containers are tested as root"
}
teardown() {
	"$CAISSON" ps -aq | xargs -r "$CAISSON" rm -f >/dev/null
	nothing_left
}

cai() { timeout -k 5 90 "$CAISSON" "$@"; }
# run, kept unless --rm is among the words
new() { timeout -k 5 90 "$CAISSON" run $E2E_LIFE_FLAGS "$@"; }
get() { "$CAISSON" inspect "$1" | python3 -c "import json, sys; d = json.load(sys.stdin)[0]; print($2)"; }
sh_loop='trap "echo bye; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
# A sandbox NAME in the background whose program says "ready" and ends with 5 by TERM.
start_loop() {
	new -d --name "$@" -- sh -c "$sh_loop" >/dev/null
	wait_for logged "$1" ready
}
logged() { "$CAISSON" logs "$1" 2>&1 | grep -q "$2"; }

@test "run says what the program says and ends as it ends" {
	for status in 0 1 7 126; do
		run --separate-stderr new --rm -- sh -c "echo out; echo err >&2; exit $status"
		[ "$status" -eq "$status" ]
		[ "$output" = out ]
		[ "$stderr" = err ]
	done
	run new --rm -- no-such-program
	[ "$status" -eq 127 ]
	run new --rm -- /etc
	[ "$status" -eq 126 ]
	run new --rm -- sh -c 'kill -KILL $$'
	[ "$status" -eq 137 ]
	[ -z "$("$CAISSON" ps -aq)" ]
}

@test "standard input goes through unchanged, standard output too" {
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/data"
	new --rm -i -- cat <"$BATS_TEST_TMPDIR/data" | cmp - "$BATS_TEST_TMPDIR/data"
}

@test "user, directory, environment and host name are what was asked for" {
	run new --rm -u 123:45 -w /tmp/a/b -e A=1 -e B="x y" --hostname box -- sh -c 'id -u; id -g; pwd; echo $A $B; hostname'
	[ "$output" = $'123\n45\n/tmp/a/b\n1 x y\nbox' ]
	[ "$(new --rm --name called -- hostname)" = called ]
	printf '# comment\nC=2\n\nD=a b=c\n' >"$BATS_TEST_TMPDIR/env"
	run new --rm --env-file "$BATS_TEST_TMPDIR/env" -- sh -c 'echo $C $D'
	[ "$output" = "2 a b=c" ]
	# A sandbox without a name knows itself, too: else programs that ask for their own name wait for name servers.
	new --rm -- sh -c 'grep -q "[[:space:]]$(hostname)$" /etc/hosts'
}

@test "a sandbox is kept when it has ended, with what it wrote, and can be started again" {
	run new --name keep -- sh -c 'echo first >>/root/file; cat /root/file; exit 3'
	[ "$status" -eq 3 ]
	[ "$("$CAISSON" ps -q)" = "" ]
	[ "$(get keep 'd["status"], d["exit_code"]')" = "exited 3" ]
	run cai start -a keep
	[ "$status" -eq 3 ]
	[ "$output" = $'first\nfirst' ]
	[ "$(get keep 'd["starts"]')" = 2 ]
	run cai rm keep
	[ "$output" = keep ]
	run cai start keep
	[ "$status" -eq 1 ]
	[[ $output == *"no sandbox 'keep'"* ]]
}

@test "-d prints the id at once; ps, logs, stop and rm follow" {
	id=$(new -d --name bg --label tier=web --label x -- sh -c "$sh_loop")
	[[ $id =~ ^[0-9a-f]{12}$ ]]
	wait_for logged bg ready
	[ "$("$CAISSON" ps -q)" = "$id" ]
	[ "$("$CAISSON" ps -q --filter name=bg --filter label=tier=web --filter status=running)" = "$id" ]
	[ -z "$("$CAISSON" ps -q --filter label=tier=db)" ]
	[ "$("$CAISSON" ps --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["name"])')" = bg ]
	run cai rm bg
	[ "$status" -eq 1 ]
	[[ $output == *"is running"* ]]
	[ "$(cai stop bg)" = bg ]
	[ "$(get bg 'd["status"], d["exit_code"]')" = "exited 5" ]
	logged bg bye
	[ "$(cai stop bg)" = bg ] # twice is no error
	[ "$("$CAISSON" ps -aq --filter exited=5)" = "$id" ]
	cai rm "${id:0:6}"
	[ -z "$("$CAISSON" ps -aq)" ]
}

@test "stop kills what does not react, after its time" {
	new -d --name deaf -- sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
	wait_for logged deaf ready
	cai stop -t 1 deaf
	[ "$(get deaf 'd["exit_code"]')" = 137 ]
}

@test "the stop signal is what --stop-signal says" {
	new -d --name sig --stop-signal USR1 -- sh -c 'trap "exit 9" USR1; echo ready; while :; do sleep 0.1; done'
	wait_for logged sig ready
	cai stop sig
	[ "$(get sig 'd["exit_code"]')" = 9 ]
}

@test "kill sends any signal; wait prints the status" {
	start_loop k
	cai wait k >"$BATS_TEST_TMPDIR/waited" 3>&- &
	pid=$!
	cai kill -s TERM k
	wait $pid
	[ "$(cat "$BATS_TEST_TMPDIR/waited")" = 5 ]
	[ "$(cai wait k)" = 5 ]
	run cai kill k
	[ "$status" -eq 1 ]
	[[ $output == *"not running"* ]]
	cai start k
	cai kill k
	[ "$(cai wait k)" = 137 ]
}

@test "exec runs in the same sandbox, as asked" {
	start_loop x -e FROM=run
	run cai exec x sh -c "echo hi >/tmp/mark; exit 4"
	[ "$status" -eq 4 ]
	[ "$(cai exec -u 5:6 -w /tmp -e N=1 x sh -c 'id -u; id -g; pwd; cat mark; echo $N $FROM')" = $'5\n6\n/tmp\nhi\n1 run' ]
	[ "$(echo through | cai exec -i x cat)" = through ]
	run cai exec x no-such-program
	[ "$status" -eq 127 ]
	cai exec -d x sh -c 'sleep 0.2; echo later >/root/later'
	wait_for cai exec x test -e /root/later
	cai stop x
	run cai exec x true
	[ "$status" -eq 125 ]
	[[ $output == *"not running"* ]]
}

@test "logs: both streams, tail, since, timestamps, follow to the end" {
	new --name l -- sh -c 'echo one; echo two >&2; printf three' || true
	run --separate-stderr cai logs l
	[ "$output" = $'one\nthree' ]
	[ "$stderr" = two ]
	[ "$(cai logs --tail 1 l)" = three ]
	[[ $(cai logs -t --tail 3 l 2>/dev/null | head -n 1) =~ ^20[0-9-]+T[0-9:.]+Z\ one$ ]]
	[ -z "$(cai logs --since 2099-01-01 l)" ]
	[ -n "$(cai logs --since 1h l)" ]
	new -d --name f -- sh -c 'for i in 1 2 3; do echo $i; sleep 0.2; done'
	[ "$(cai logs -f f)" = $'1\n2\n3' ]
}

@test "cp takes files and trees both ways" {
	start_loop c
	mkdir -p "$BATS_TEST_TMPDIR/tree/sub"
	echo one >"$BATS_TEST_TMPDIR/tree/a"
	echo two >"$BATS_TEST_TMPDIR/tree/sub/b"
	ln -s sub/b "$BATS_TEST_TMPDIR/tree/link"
	chmod 751 "$BATS_TEST_TMPDIR/tree/sub"
	cai cp "$BATS_TEST_TMPDIR/tree/a" c:/root/new-name
	[ "$(cai exec c cat /root/new-name)" = one ]
	cai cp "$BATS_TEST_TMPDIR/tree" c:/root
	cai cp "$BATS_TEST_TMPDIR/tree" c:/root/other
	cai cp "$BATS_TEST_TMPDIR/tree/." c:/root/tree/sub
	[ "$(cai exec c sh -c 'cd /root; cat tree/sub/b other/sub/b tree/sub/a; readlink other/link; stat -c %a other/sub')" = $'two\ntwo\none\nsub/b\n751' ]
	cai cp c:/root/other "$BATS_TEST_TMPDIR/back"
	diff -r "$BATS_TEST_TMPDIR/tree" "$BATS_TEST_TMPDIR/back"
	[ "$(readlink "$BATS_TEST_TMPDIR/back/link")" = sub/b ]
	[ "$(stat -c %a "$BATS_TEST_TMPDIR/back/sub")" = 751 ]
	mkdir "$BATS_TEST_TMPDIR/in"
	cai cp c:/root/new-name "$BATS_TEST_TMPDIR/in"
	[ "$(cat "$BATS_TEST_TMPDIR/in/new-name")" = one ]
	cai cp c:/root/other - | tar t | grep -q '^other/sub/b$'
	tar c -C "$BATS_TEST_TMPDIR" tree | cai cp - c:/tmp
	[ "$(cai exec c cat /tmp/tree/a)" = one ]
	run cai cp c:/no/such/file "$BATS_TEST_TMPDIR/x"
	[ "$status" -eq 1 ]
	[[ $output == *"/no/such/file"* ]]
	run cai cp /no/such/file c:/x
	[ "$status" -eq 1 ]
	run cai cp a b
	[ "$status" -eq 125 ]
}

@test "cp takes nothing out of a sandbox but what was asked for" {
	start_loop c
	cai exec c sh -c 'mkdir -p /w/x && echo good >/w/x/f'
	local to=$BATS_TEST_TMPDIR/to said=$BATS_TEST_TMPDIR/said lib=$BATS_TEST_TMPDIR/lib
	# The one who extracts must be told what to expect: he takes nothing else.
	cp -r "$CAISSON_LIBEXEC" "$lib"
	mv "$lib/caisson-image" "$lib/real"
	printf '#!/bin/sh\necho "$*" >>"%s"\nexec "%s" "$@"\n' "$said" "$lib/real" >"$lib/caisson-image"
	chmod +x "$lib/caisson-image"
	mkdir "$to"
	CAISSON_LIBEXEC=$lib cai cp c:/w/x "$to"
	CAISSON_LIBEXEC=$lib cai cp c:/w/x/ "$to/y"
	CAISSON_LIBEXEC=$lib cai cp c:/w/x/. "$to/z"
	[ "$(cat "$to"/{x,y,z}/f)" = $'good\ngood\ngood' ]
	[ "$(cut -d' ' -f1-3 "$said")" = $'untar --from x\nuntar --from x\nuntar --from .' ]
}

@test "a link in the sandbox leads cp nowhere on this host" {
	start_loop evil
	cai exec evil sh -c "ln -s $BATS_TEST_TMPDIR/outside /root/link; mkdir /root/d; ln -s / /root/d/up"
	mkdir "$BATS_TEST_TMPDIR/outside" "$BATS_TEST_TMPDIR/dest"
	echo x >"$BATS_TEST_TMPDIR/x"
	cai cp "$BATS_TEST_TMPDIR/x" evil:/root/link/x || true
	[ -z "$(ls "$BATS_TEST_TMPDIR/outside")" ]
	cai cp evil:/root "$BATS_TEST_TMPDIR/dest"
	cai cp "$BATS_TEST_TMPDIR/x" evil:/root/d/up/x-mark
	[ ! -e /x-mark ]
	cai exec evil test -e /x-mark
}

@test "pause stops everything, unpause goes on" {
	new -d --name p -- sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'
	wait_for logged p 3
	cai pause p
	[ "$(get p 'd["status"]')" = paused ]
	a=$(cai logs p | wc -l)
	sleep 0.4
	[ "$(cai logs p | wc -l)" -le $((a + 1)) ]
	run cai exec p true
	[[ $output == *"is paused"* ]]
	run cai pause p
	[ "$status" -eq 1 ]
	cai unpause p
	more() { [ "$(cai logs p | wc -l)" -gt $((a + 3)) ]; }
	wait_for more
	cai pause p
	cai stop -t 1 p
}

@test "top lists what runs, stats what it uses" {
	start_loop t
	[[ $(cai top t) == *"sh -c"* ]]
	cai top --json t | python3 -c 'import json, sys; assert any("sh" in p["cmd"] for p in json.load(sys.stdin))'
	cai stats --json t | python3 -c '
import json, sys
s = json.load(sys.stdin)[0]
assert s["name"] == "t" and s["host"]["memory"] > 0 and s["guest"]["memory"]["total"] > 0 and s["cpu_percent"] >= 0, s'
	[[ $(cai stats --no-stream) == *" t "* ]]
}

@test "create, start, restart, rename, update" {
	id=$(cai create ${E2E_LIFE_FLAGS} --name made -- sh -c "$sh_loop")
	[ "$(get made 'd["status"]')" = created ]
	cai start made
	wait_for logged made ready
	run cai rename made other
	[ "$status" -eq 0 ]
	[ "$(get other 'd["id"]')" = "$id" ]
	run cai inspect made
	[ "$status" -eq 1 ]
	cai update --cpus 0.5 --stop-timeout 3 other
	[ "$(get other 'd["config"]["cpu_milli"], d["config"]["stop_timeout"]')" = "500 3" ]
	cai restart other
	[ "$(get other 'd["status"], d["starts"]')" = "running 2" ]
	cai stop other
	run cai rename other 'bad name'
	[ "$status" -eq 1 ]
}

@test "a name is taken by one sandbox, also an ended one" {
	new --name one -- true
	run new --name one -- true
	[ "$status" -eq 125 ]
	[[ $output == *"exists already"* ]]
	cai rm one
	new --name one --rm -- true
}

@test "prune removes what does not run and nothing else" {
	new --name dead -- true
	start_loop live
	cai prune -f
	[ "$("$CAISSON" ps -a --json | python3 -c 'import json, sys; print([s["name"] for s in json.load(sys.stdin)])')" = "['live']" ]
}

@test "events tell what happened" {
	new --name ev --rm -- true
	events=$(cai events --since 1h --until 0s --json | python3 -c 'import json, sys
print([json.loads(l)["event"] for l in sys.stdin if json.loads(l)["name"] == "ev"])')
	[ "$events" = "['create', 'start', 'die', 'destroy']" ]
}

@test "a runner killed with -9: the truth, and the sandbox can be started again" {
	start_loop victim
	cai exec victim sh -c 'echo kept >/root/kept; sync'
	kill -9 "$(get victim 'd["runner_pid"]')"
	ended() { [ "$(get victim 'd["status"], d["exit_code"]')" = "exited 137" ]; }
	wait_for ended
	[[ $(get victim 'd["error"]') == *"was killed"* ]]
	no_monitors() { [ -z "$(monitors)" ]; }
	wait_for no_monitors
	cai start victim
	[ "$(cai exec victim cat /root/kept)" = kept ]
}

@test "--read-only, --tmpfs and --ephemeral" {
	run new --rm --read-only --tmpfs /scratch:size=4m -- sh -c 'touch /x 2>/dev/null || echo refused; echo y >/scratch/y && cat /scratch/y'
	[ "$output" = $'refused\ny' ]
	new --ephemeral --name eph -- sh -c 'echo x >/root/x; test -e /root/x'
	run cai start -a eph
	[ "$status" -eq 0 ]
	cai rm eph
}

@test "memory has a limit, and running out of it is said" {
	[ "$E2E_KIND" != container ] || "$CAISSON" doctor --cached | grep -q "cgroups .*memory" || skip "this host has no memory controller"
	run new --name hog -m 96M -- sh -c 'a=x; while :; do a=$a$a; done'
	[ "$status" -ne 0 ]
	[ "$(get hog 'd["oom_killed"]')" = True ]
	[ "$(get hog 'd["exit_code"]')" = 137 ]
}

@test "a directory of this host is shared live in both directions" {
	mkdir "$BATS_TEST_TMPDIR/share"
	echo host >"$BATS_TEST_TMPDIR/share/from-host"
	cd "$BATS_TEST_TMPDIR"
	new -d --name v -v ./share:/mnt/share -- sh -c "$sh_loop"
	cd /
	wait_for logged v ready
	[ "$(cai exec v cat /mnt/share/from-host)" = host ]
	cai exec v sh -c 'echo guest >/mnt/share/from-guest; mkdir /mnt/share/d; mv /mnt/share/from-guest /mnt/share/d/moved'
	[ "$(cat "$BATS_TEST_TMPDIR/share/d/moved")" = guest ]
	echo changed >"$BATS_TEST_TMPDIR/share/from-host"
	[ "$(cai exec v cat /mnt/share/from-host)" = changed ]
	rm "$BATS_TEST_TMPDIR/share/from-host"
	run cai exec v cat /mnt/share/from-host
	[ "$status" -ne 0 ]
	ln -s /etc "$BATS_TEST_TMPDIR/share/link"
	[ "$(cai exec v readlink /mnt/share/link)" = /etc ]
}

@test "a share for reading takes no writing" {
	mkdir "$BATS_TEST_TMPDIR/ro"
	echo x >"$BATS_TEST_TMPDIR/ro/x"
	run new --rm -v "$BATS_TEST_TMPDIR/ro:/ro:ro" -- sh -c 'cat /ro/x; echo y >/ro/y || exit 9'
	[ "$status" -eq 9 ]
	[ ! -e "$BATS_TEST_TMPDIR/ro/y" ]
}

@test "a published port leads to the sandbox" {
	[ "$(id -u)" = 0 ] || skip "tested as root"
	new -d --name web -p 8080 -- sh -c 'mkdir /www; echo served >/www/index.html; echo ready; httpd -f -p 8080 -h /www'
	wait_for logged web ready
	port=$(cai port web | sed 's/.*127\.0\.0\.1:\([0-9]*\) .*/\1/')
	served() { [ "$(curl -s --max-time 5 "http://127.0.0.1:$port/")" = served ]; }
	wait_for served
}

@test "--network none has no network" {
	run new --rm --network none -- sh -c 'ls /sys/class/net'
	[ "$output" = lo ]
}
