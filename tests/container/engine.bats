#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a container is to do.

load helper
setup_file() { container_setup_file; }
setup() {
	container_setup
	chmod 755 "$BATS_TEST_TMPDIR"
}
teardown() { container_teardown; }

info_pid() {
	local i
	for i in $(seq 250); do
		pid=$(sed -n 's/^info: pid=\([0-9]*\).*/\1/p' "$1" 2>/dev/null)
		[ -n "$pid" ] && return 0
		sleep 0.02
	done
	return 1
}

@test "a command's status and output come out" {
	[ "$(image /bin/echo hello)" = hello ]
	run sh_in 'exit 7'
	[ "$status" -eq 7 ]
	run sh_in 'kill -TERM $$'
	[ "$status" -eq 143 ]
	status=0
	image /bin/nothing 2>/dev/null || status=$?
	[ "$status" -eq 127 ]
}

@test "a directory as the root is never written" {
	before=$(find "$ROOT" | sort | sha256sum)
	[ "$(c --dir "$ROOT" /bin/sh -c 'echo new >/etc/origin; rm /bin/ls; mkdir /made; cat /etc/origin')" = new ]
	[ "$(cat "$ROOT/etc/origin")" = image ]
	[ "$(find "$ROOT" | sort | sha256sum)" = "$before" ]
}

@test "changes live in the upper directory and are owned by root there" {
	mkdir "$BATS_TEST_TMPDIR/changes"
	image --upper "$BATS_TEST_TMPDIR/changes" /bin/sh -c 'echo kept >/etc/origin; touch /mine; chown 1000:1000 /mine; rm /bin/tty'
	[ "$(image --upper "$BATS_TEST_TMPDIR/changes" /bin/sh -c 'cat /etc/origin; stat -c %u:%g /mine /etc/origin; ls /bin/tty 2>/dev/null')" = $'kept\n1000:1000\n0:0' ]
	[ "$(stat -c %u:%g "$BATS_TEST_TMPDIR/changes/upper/mine" "$BATS_TEST_TMPDIR/changes/upper/etc/origin")" = $'1000:1000\n0:0' ]
}

@test "changes that are to be thrown away are changes all the same, and cost no writing to the disk" {
	mkdir "$BATS_TEST_TMPDIR/changes"
	[ "$(image --upper "$BATS_TEST_TMPDIR/changes" --discard /bin/sh -c 'echo new >/etc/origin; sync; cat /etc/origin; mount | grep -c "^caisson on / .*volatile"')" = $'new\n1' ]
	[ "$(image --upper "$BATS_TEST_TMPDIR/changes" --discard /bin/cat /etc/origin)" = new ]
	run image --upper "$BATS_TEST_TMPDIR/changes" /bin/true # as if it were whole
	[ "$status" -eq 125 ]
}

@test "a read-only root is one, and its mounts are not" {
	run image --read-only --tmpfs /scratch /bin/sh -c 'touch /x 2>/dev/null && echo wrote; touch /etc/y 2>/dev/null && echo wrote; touch /scratch/z /dev/shm/z && echo fine'
	[ "$output" = fine ]
	[ "$(image --read-only --hosts hello /bin/cat /etc/hosts)" = hello ]
}

@test "a directory is mounted, read-only when asked, with the owners that it has" {
	mkdir "$BATS_TEST_TMPDIR/vol"
	echo there >"$BATS_TEST_TMPDIR/vol/file"
	chown 1000:1000 "$BATS_TEST_TMPDIR/vol/file"
	[ "$(image --bind "$BATS_TEST_TMPDIR/vol:/a/b/c" /bin/sh -c 'cat /a/b/c/file; stat -c %u /a/b/c/file /a/b/c; echo back >/a/b/c/new')" = $'there\n1000\n0' ]
	[ "$(cat "$BATS_TEST_TMPDIR/vol/new")" = back ]
	[ "$(stat -c %u "$BATS_TEST_TMPDIR/vol/new")" = 0 ]
	run image --bind "$BATS_TEST_TMPDIR/vol:/v:ro" /bin/sh -c 'cat /v/file; touch /v/x'
	[ "$status" -ne 0 ]
	[ ! -e "$BATS_TEST_TMPDIR/vol/x" ]
	[ "$(image --bind "$BATS_TEST_TMPDIR/vol/file:/etc/one" /bin/cat /etc/one)" = there ]
	run image --bind "$BATS_TEST_TMPDIR/none:/v" /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *"cannot mount $BATS_TEST_TMPDIR/none"* ]]
}

@test "what the host writes into a mounted directory is seen at once, and the other way" {
	mkdir "$BATS_TEST_TMPDIR/live"
	image --bind "$BATS_TEST_TMPDIR/live:/live" /bin/sh -c 'while [ ! -e /live/go ]; do sleep 0.02; done; touch /live/gone' 3>&- &
	sleep 0.3
	touch "$BATS_TEST_TMPDIR/live/go"
	wait
	[ -e "$BATS_TEST_TMPDIR/live/gone" ]
}

@test "a tmpfs has its size, mode and owner" {
	[ "$(image --tmpfs /t:size=1m,mode=700,uid=1000 /bin/sh -c 'stat -c "%a %u" /t; head -c 2000000 /dev/zero >/t/f 2>/dev/null; stat -c %s /t/f')" = $'700 1000\n1048576' ]
	run image --tmpfs /t:nonsense=1 /bin/true
	[ "$status" -eq 125 ]
	run image --tmpfs /t:size=1m,lowerdir=/etc /bin/true
	[ "$status" -eq 125 ]
}

@test "terminals, shared memory, message queues and descriptors are where programs look for them" {
	[ "$(sh_in 'ls -d /dev/pts /dev/shm /dev/mqueue; for l in ptmx fd stdin; do readlink /dev/$l; done')" = $'/dev/mqueue\n/dev/pts\n/dev/shm\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0' ]
	[ "$(sh_in 'echo via | cat /dev/stdin; echo x >/dev/stdout')" = $'via\nx' ]
}

@test "loopback is up, low ports are open to every user" {
	[ "$(image --user user /bin/sh -c '(echo hi | nc -l -p 80 >/dev/null) & sleep 0.3; nc 127.0.0.1 80 </dev/null')" = hi ]
}

@test "a memory limit holds, and what it killed is counted" {
	image --memory $((64 << 20)) /bin/true 2>"$BATS_TEST_TMPDIR/why" || skip "$(cat "$BATS_TEST_TMPDIR/why")"
	run image --memory $((32 << 20)) --stats /bin/probe eat 200
	[ "$status" -eq 137 ]
	[[ "$output" != *"ate 200"* ]]
	[[ "$output" == *"limit=$((32 << 20))"* ]]
	[[ ! "$output" =~ oom_kills=0\  ]]
	run image --memory $((256 << 20)) /bin/probe eat 64
	[ "$output" = "ate 64" ]
}

@test "a limit of processes holds" {
	run image --pids 20 --stats /bin/probe forks 100
	[ "$status" -ne 125 ] || skip "$output"
	n=$(sed -n 's/^forked \([0-9]*\)$/\1/p' <<<"$output")
	[ "$n" -lt 20 ]
	[ "$n" -gt 10 ]
}

@test "a limit of CPU time holds" {
	start=$(date +%s%N)
	run image --cpus 0.2 --stats /bin/sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done'
	[ "$status" -eq 0 ] || skip "$output"
	wall=$(( ($(date +%s%N) - start) / 1000000 ))
	cpu=$(( $(sed -n 's/.*cpu_ns=\([0-9]*\).*/\1/p' <<<"$output") / 1000000 ))
	echo "cpu $cpu ms in $wall ms"
	[ "$cpu" -lt 60 ] || [ $((cpu * 3)) -lt "$wall" ]
}

@test "resource limits are set, and never raised where that is not allowed" {
	[ "$(image --rlimit 7:100:200 /bin/sh -c 'ulimit -n; ulimit -Hn')" = $'100\n200' ]
	[ "$(image --rlimit 7:999999999:999999999 /bin/sh -c 'ulimit -n')" -gt 0 ]
}

@test "a frozen container stands still and goes on" {
	image --freeze 300 /bin/echo alive >"$BATS_TEST_TMPDIR/out" 2>&1 || { grep -q 'control groups of freezer' "$BATS_TEST_TMPDIR/out" && skip "no freezer"; }
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = alive ]
}

@test "a container ends with what started it, even when that is killed" {
	"$CONTAINER_RUN" --id "t-$BATS_ROOT_PID-orphan" --userns "$USERNS" --image "$IMAGE" --info /bin/sleep 300 2>"$BATS_TEST_TMPDIR/info" 3>&- &
	runner=$!
	info_pid "$BATS_TEST_TMPDIR/info"
	[ -d "/proc/$pid" ]
	kill -9 $runner
	wait $runner || true
	for i in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.02; done
	[ ! -d "/proc/$pid" ]
	"$CONTAINER_RUN" --heal "t-$BATS_ROOT_PID-orphan"
	rm -f "/tmp/container-run.$runner.sock"
}

@test "healing what is not there is fine, and a name cannot lead elsewhere" {
	"$CONTAINER_RUN" --heal t-never-was
	run "$CONTAINER_RUN" --heal ../../memory
	[ "$status" -eq 125 ]
	run "$CONTAINER_RUN" --heal ..
	[ "$status" -eq 125 ]
}

@test "a container that cannot be started leaves nothing and says why" {
	run image --bind "$ROOT:/proc/x" /bin/true
	[ "$status" -eq 125 ]
	head -c 65536 /dev/urandom >"$BATS_TEST_TMPDIR/junk"
	run c --image "$BATS_TEST_TMPDIR/junk" /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *"image"* ]]
	run c --dir "$BATS_TEST_TMPDIR/nowhere" /bin/true
	[ "$status" -eq 125 ]
	run image --agent "$BATS_TEST_TMPDIR/junk" /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *"agent"* ]]
	run c --dir "$ROOT" --upper "$BATS_TEST_TMPDIR/none" /bin/true
	[ "$status" -eq 125 ]
}

@test "twenty at once start, and leave nothing" {
	for i in $(seq 20); do
		("$CONTAINER_RUN" --id "t-$BATS_ROOT_PID-many$i" --userns "$USERNS" --image "$IMAGE" /bin/echo "$i" >"$BATS_TEST_TMPDIR/many.$i" 3>&-) &
	done
	wait
	[ "$(cat "$BATS_TEST_TMPDIR"/many.* | sort -n | tr '\n' ' ')" = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 " ]
}

@test "processes of the container are its own group's" {
	[ "$(sh_in 'cut -d: -f3 /proc/self/cgroup | sort -u')" = / ]
}

@test "on a host with version 2 of control groups alone, and on one with none" {
	command -v unshare >/dev/null || skip "util-linux is not installed"
	grep -q ' - cgroup2 ' /proc/self/mountinfo || skip "the host has no cgroup2 mount"
	cat >"$BATS_TEST_TMPDIR/v2.sh" <<-'END'
		set -e
		awk '/ - cgroup / { print $5 }' /proc/self/mountinfo | while read -r m; do umount "$m"; done
		out=$("$CONTAINER_RUN" --id "$ID" --userns "$USERNS" --image "$IMAGE" --stats --freeze 50 /bin/sh -c 'tail -n 1 /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.freeze' 2>&1)
		echo "$out" | grep -q '^0::/$' && echo "$out" | grep -q '^0$' && echo "$out" | grep -q 'cpu_ns=[1-9]'
		awk '/ - cgroup2 / { print $5 }' /proc/self/mountinfo | while read -r m; do umount "$m"; done
		[ "$("$CONTAINER_RUN" --id "$ID" --userns "$USERNS" --image "$IMAGE" --info /bin/echo fine 2>&1 | tail -n 1)" = fine ]
		! "$CONTAINER_RUN" --id "$ID" --userns "$USERNS" --image "$IMAGE" --memory 100000000 /bin/true 2>&1 | grep -v 'no control groups are mounted'
	END
	ID=t-$BATS_ROOT_PID-v2 unshare -m sh "$BATS_TEST_TMPDIR/v2.sh"
}
