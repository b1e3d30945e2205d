#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A command in a sandbox behaves as it would on the host: exit status, streams, environment, signals.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() { e2e_setup; }
teardown() { nothing_left; }

@test "the exit status is the program's" {
	for n in 0 1 7 42 125 255; do
		run sandbox -- sh -c "exit $n"
		[ "$status" -eq $n ]
	done
}

@test "a program ended by a signal gives 128 + n" {
	run sandbox -- sh -c 'kill -9 $$'
	[ "$status" -eq 137 ]
	run sandbox -- sh -c 'kill -TERM $$'
	[ "$status" -eq 143 ]
}

@test "a command that does not exist gives 127 and one sentence" {
	run -127 sandbox -- no-such-command
	[ "$status" -eq 127 ]
	[ "${#lines[@]}" -eq 1 ]
	[[ $output == *no-such-command* ]]
}

@test "a file that cannot be executed gives 126 and one sentence" {
	run sandbox -- /etc/passwd
	[ "$status" -eq 126 ]
	[ "${#lines[@]}" -eq 1 ]
}

@test "a directory given by -w that is a file gives 126" {
	run sandbox -w /etc/passwd -- true
	[ "$status" -eq 126 ]
}

@test "an unknown user given by -u gives 125" {
	run sandbox -u no-such-user -- true
	[ "$status" -eq 125 ]
	[[ $output == *no-such-user* ]]
}

@test "stdout and stderr are separate" {
	sandbox -- sh -c 'echo to-out; echo to-err >&2' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = to-out ]
	[ "$(cat "$BATS_TEST_TMPDIR/err")" = to-err ]
}

@test "without -i standard input is empty" {
	run sandbox -- cat <<<"not for you"
	[ "$status" -eq 0 ]
	[ -z "$output" ]
}

@test "20 MB of random bytes survive the way in and out, from a pipe and from a file" {
	head -c 20000000 /dev/urandom >"$BATS_TEST_TMPDIR/random"
	want=$(sha256sum <"$BATS_TEST_TMPDIR/random")
	[ "$(cat "$BATS_TEST_TMPDIR/random" | sandbox -i -- cat | sha256sum)" = "$want" ]
	[ "$(sandbox -i -- cat <"$BATS_TEST_TMPDIR/random" | sha256sum)" = "$want" ]
	sandbox -i -- cat <"$BATS_TEST_TMPDIR/random" >"$BATS_TEST_TMPDIR/copy"
	cmp "$BATS_TEST_TMPDIR/random" "$BATS_TEST_TMPDIR/copy"
}

@test "the guest sees what the host sends: a digest made inside" {
	head -c 5000000 /dev/urandom >"$BATS_TEST_TMPDIR/random"
	[ "$(sandbox -i -- sha256sum <"$BATS_TEST_TMPDIR/random")" = "$(sha256sum <"$BATS_TEST_TMPDIR/random")" ]
}

@test "tar passes through in both directions" {
	mkdir -p "$BATS_TEST_TMPDIR/tree/sub" "$BATS_TEST_TMPDIR/back"
	echo one >"$BATS_TEST_TMPDIR/tree/a"
	head -c 100000 /dev/urandom >"$BATS_TEST_TMPDIR/tree/sub/b"
	run bash -c "tar c -C '$BATS_TEST_TMPDIR/tree' . | '$CAISSON' run $E2E_FLAGS -i -- tar t"
	[ "$status" -eq 0 ]
	[[ $output == *sub/b* ]]
	tar c -C "$BATS_TEST_TMPDIR/tree" . | sandbox -i -- sh -c 'mkdir /tmp/e2e.$$; cd /tmp/e2e.$$; tar x; tar c .; rm -r /tmp/e2e.$$' |
		tar x -C "$BATS_TEST_TMPDIR/back"
	diff -r "$BATS_TEST_TMPDIR/tree" "$BATS_TEST_TMPDIR/back"
}

@test "a slow reader holds the program back and loses nothing" {
	out=$(sandbox -- sh -c 'head -c 3000000 /dev/zero' | (sleep 1; wc -c))
	[ "$out" -eq 3000000 ]
}

@test "a program that never reads its input does not stop the run" {
	run bash -c "head -c 5000000 /dev/zero | timeout 60 '$CAISSON' run $E2E_FLAGS -i -- sh -c 'exit 3'"
	[ "$status" -eq 3 ]
}

@test "a closed standard output ends the program as on the host" {
	run bash -c "timeout 60 '$CAISSON' run $E2E_FLAGS -- yes | head -n 1; echo \${PIPESTATUS[0]}"
	[ "${lines[0]}" = y ]
	[ "${lines[1]}" -eq 141 ]
}

@test "a full disk behind standard output is reported" {
	run bash -c "'$CAISSON' run $E2E_FLAGS -- echo lost 2>&1 >/dev/full"
	[ "$status" -eq 125 ]
	[[ $output == *"No space left"* ]]
}

@test "-e sets a variable, takes the host's value, and the last one wins" {
	export E2E_FROM_HOST="host value"
	run sandbox -e A=1 -e A=2 -e B="x y=z" -e E2E_FROM_HOST -e E2E_NOT_SET -- sh -c 'echo "$A|$B|$E2E_FROM_HOST|${E2E_NOT_SET-unset}"'
	[ "$status" -eq 0 ]
	[ "$output" = "2|x y=z|host value|unset" ]
}

@test "-w sets the working directory" {
	run sandbox -w /tmp -- pwd
	[ "$output" = /tmp ]
}

@test "-u sets the user by number" {
	run sandbox -u 12:34 -- sh -c 'id -u; id -g'
	[ "${lines[0]}" = 12 ]
	[ "${lines[1]}" = 34 ]
}

@test "arguments arrive as they are" {
	run sandbox -- printf '%s|' "a b" "" 'c"d' $'e\nf' -- --x '*'
	[ "$output" = $'a b||c"d|e\nf|--|--x|*|' ]
}

@test "SIGTERM reaches the program" {
	"$CAISSON" run $E2E_FLAGS -- sh -c 'trap "echo got it; exit 9" TERM; echo ready; while :; do sleep 0.1; done' >"$BATS_TEST_TMPDIR/out" 3>&- &
	pid=$!
	wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
	kill -TERM "$pid"
	rc=0
	wait "$pid" || rc=$?
	[ "$rc" -eq 9 ]
	grep -q "got it" "$BATS_TEST_TMPDIR/out"
}

@test "three SIGINT end a program that ignores them" {
	"$CAISSON" run $E2E_FLAGS -- sh -c 'trap "" INT; echo ready; while :; do sleep 0.1; done' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	pid=$!
	wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
	for i in 1 2 3; do
		kill -INT "$pid"
		sleep 0.2
	done
	rc=0
	wait "$pid" || rc=$?
	[ "$rc" -eq 130 ]
	grep -q "did not end when asked" "$BATS_TEST_TMPDIR/err"
}

@test "a name is unique while its sandbox runs, and free afterwards" {
	"$CAISSON" run $E2E_FLAGS --name twin -- sh -c 'echo ready; sleep 60' >"$BATS_TEST_TMPDIR/out" 3>&- &
	pid=$!
	wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
	run sandbox --name twin -- true
	[ "$status" -eq 125 ]
	[[ $output == *"'twin' exists already"* ]]
	kill -TERM "$pid"
	wait "$pid" || true
	run sandbox --name twin -- true
	[ "$status" -eq 0 ]
}

@test "ten sandboxes at once do not disturb each other" {
	for i in $(seq 10); do
		(sandbox -m 128M -- sh -c "echo I am $i; exit $i" || echo "status $?") >"$BATS_TEST_TMPDIR/$i" 2>&1 3>&- &
	done
	wait
	for i in $(seq 10); do
		[ "$(cat "$BATS_TEST_TMPDIR/$i")" = "I am $i"$'\n'"status $i" ]
	done
}

@test "a monitor killed with -9 is a sentence and 125" {
	"$CAISSON" run $E2E_FLAGS --name victim -- sh -c 'echo ready; sleep 60' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	pid=$!
	wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
	kill -9 $(monitors)
	rc=0
	wait "$pid" || rc=$?
	[ "$rc" -eq 125 ]
	grep -q "was killed by signal 9" "$BATS_TEST_TMPDIR/err"
}

@test "a runner killed with -9 takes its monitor along, and the next command heals the rest" {
	"$CAISSON" run $E2E_FLAGS --name orphan -- sh -c 'echo ready; sleep 60' >"$BATS_TEST_TMPDIR/out" 3>&- &
	pid=$!
	wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
	kill -9 "$pid"
	wait "$pid" || true
	no_monitors() { [ -z "$(monitors)" ]; }
	wait_for no_monitors
	[ -n "$(ls "$CAISSON_ROOT/sandboxes")" ]
	run sandbox --name orphan -- true
	[ "$status" -eq 0 ]
}

@test "no descriptor, variable or process of the host is visible to the program" {
	needs_real
	export E2E_SECRET=secret
	run sandbox -- sh -c 'env; ls /proc/self/fd; ps' 7</dev/null
	[[ $output != *secret* ]]
	[[ $output != *caisson-vmm* ]]
}

@test "the guest has its own kernel, CPUs, memory and host name" {
	needs_real
	[ "$(sandbox --cpus 2 -- nproc)" = 2 ]
	[ "$(sandbox --name my-box -- hostname)" = my-box ]
	run sandbox -- uname -r
	[[ $output == *-caisson ]]
	kb=$(sandbox -m 256M -- sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	[ "$kb" -gt 150000 ]
	[ "$kb" -le 262144 ]
}
