#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Directories shared with a microVM (-v): live in both directions, and nothing beside them.

bats_require_minimum_version 1.5.0
load helper
setup_file() {
	e2e_setup_file
	# A copy, by which this file's servers are told from others.
	cp --remove-destination "$(readlink -f "$CAISSON_LIBEXEC/caisson-fs")" "$CAISSON_LIBEXEC/caisson-fs"
}
setup() {
	e2e_setup
	dir=$BATS_TEST_TMPDIR/shared
	mkdir "$dir"
}
teardown() {
	"$CAISSON" ps -aq | xargs -r "$CAISSON" rm -f >/dev/null
	nothing_left
	[ -z "$(servers)" ]
}

# Process ids of this test file's servers of shared directories.
servers() {
	local p
	for p in /proc/[0-9]*; do
		[ "$(readlink "$p/exe" 2>/dev/null)" = "$CAISSON_LIBEXEC/caisson-fs" ] && echo "${p#/proc/}"
	done
	return 0
}
detached() { timeout -k 5 90 "$CAISSON" run --accel soft -d --name s "$@" -- sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done' >/dev/null; }
inside() { timeout -k 5 90 "$CAISSON" exec s "$@"; }

@test "what the host changes is seen at once, whatever was read before" {
	echo one >"$dir/f"
	detached -v "$dir:/data"
	for text in "" a "a longer text" x; do
		echo "$text" >"$dir/f"
		[ "$(inside cat /data/f)" = "$text" ]
	done
	echo replaced >"$dir/g"
	mv "$dir/g" "$dir/f"
	[ "$(inside cat /data/f)" = replaced ]
	rm "$dir/f"
	run inside cat /data/f
	[ "$status" -ne 0 ]
	mkdir "$dir/f"
	[ "$(inside stat -c %F /data/f)" = directory ]
}

@test "what the guest changes is on the host when its program has ended" {
	sandbox -v "$dir:/data" -- sh -c 'cd /data; mkdir -p a/b; echo text >a/b/f; ln a/b/f hard; ln -s a/b soft; mkfifo p
		chmod 640 hard; touch -d "2001-02-03 04:05:06" hard; mv a c; seq 1 20000 >many; dd if=/dev/zero of=sparse bs=1 count=1 seek=10M 2>/dev/null'
	[ "$(cat "$dir/c/b/f")" = text ]
	[ "$(stat -c '%a %h %Y' "$dir/hard")" = "640 2 $(date -u -d '2001-02-03 04:05:06' +%s)" ]
	[ "$(readlink "$dir/soft")" = a/b ]
	[ -p "$dir/p" ]
	seq 1 20000 | cmp - "$dir/many"
	[ "$(stat -c %s "$dir/sparse")" = 10485761 ]
	[ "$(stat -c %b "$dir/sparse")" -lt 100 ]
}

@test "links lead within the guest, never to the host" {
	echo secret >"$BATS_TEST_TMPDIR/secret"
	ln -s "$BATS_TEST_TMPDIR/secret" "$dir/absolute"
	ln -s ../secret "$dir/relative"
	ln -s / "$dir/root"
	run sandbox -v "$dir:/data" -- sh -c 'cat /data/absolute /data/relative /data/../secret /data/root/etc/hostname; echo x >/data/relative; ls /data/root'
	[[ $output != *secret* ]] || [[ $output == *"can't open"* ]]
	[ "$(cat "$BATS_TEST_TMPDIR/secret")" = secret ]
	[[ $output != *"$(hostname)"* ]]
}

@test "a read-only share stays as it is, although the guest mounts it for writing" {
	echo x >"$dir/f"
	run sandbox -v "$dir:/data:ro" -- sh -c 'mount -o remount,rw /data; echo y >/data/f; rm /data/f; echo >/data/new; chmod 777 /data; cat /data/f'
	grep -qx x <<<"$output"
	[ "$(ls "$dir")" = f ]
	[ "$(cat "$dir/f")" = x ]
}

@test "files belong to the user in the guest" {
	[ "$(id -u)" = 0 ] || skip "root's business"
	chmod 777 "$dir"
	sandbox -v "$dir:/data" -u 1234:2345 -- sh -c ': >/data/theirs; mkdir /data/dir'
	sandbox -v "$dir:/data" -- sh -c ': >/data/ours; chown 7:8 /data/ours'
	[ "$(stat -c '%u %g' "$dir/theirs")" = "1234 2345" ]
	[ "$(stat -c '%u %g' "$dir/dir")" = "1234 2345" ]
	[ "$(stat -c '%u %g' "$dir/ours")" = "7 8" ]
}

@test "a server that dies is an error, not a hang, and the sandbox goes on" {
	echo x >"$dir/f"
	detached -v "$dir:/data"
	[ "$(inside cat /data/f)" = x ]
	kill -9 $(servers)
	run inside cat /data/f
	[ "$status" -ne 0 ]
	[[ $output == *"not connected"* ]]
	[ "$(inside echo here)" = here ]
}

@test "a tree of many files comes back as it went in" {
	mkdir "$dir/tree"
	for i in $(seq 400); do echo "$i" >"$dir/tree/file with a name $i"; done
	sandbox -v "$dir:/data" -- sh -c 'cp -a /data/tree /tmp/tree && mkdir /data/out && tar -C /tmp/tree -cf - . | tar -C /data/out -xf -; rm -r /data/tree'
	[ ! -e "$dir/tree" ]
	[ "$(ls "$dir/out" | wc -l)" = 400 ]
	for i in 1 200 400; do [ "$(cat "$dir/out/file with a name $i")" = "$i" ]; done
}
