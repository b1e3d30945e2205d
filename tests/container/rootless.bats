#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Containers of an ordinary user: uid 65534, who has no range of ids, so that every host can run this.

load helper
setup_file() {
	container_setup_file
	export SHARED=$BATS_FILE_TMPDIR/shared
	mkdir -p "$SHARED"
	cp "$CONTAINER_RUN" "$SHARED/container-run"
	cp "$CAISSON_INIT" "$SHARED/caisson-init"
	cp "$IMAGE" "$SHARED/image" 2>/dev/null || true
	chmod -R a+rX "$SHARED" "$ROOT"
}
setup() {
	container_setup
	HOME_DIR=$BATS_TEST_TMPDIR/home
	mkdir "$HOME_DIR"
	chown 65534:65534 "$HOME_DIR"
	chmod 711 "$BATS_TEST_TMPDIR" "$BATS_RUN_TMPDIR"/test 2>/dev/null || true
	nobody test -w "$HOME_DIR" || skip "the tests' directory cannot be reached by another user"
	nobody unshare -Ur true 2>/dev/null || skip "the host gives ordinary users no user namespaces"
}
teardown() { container_teardown; }

nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
r() { nobody env CAISSON_INIT="$SHARED/caisson-init" timeout -k 5 60 "$SHARED/container-run" --id "t-$BATS_ROOT_PID-$BASHPID" "$@"; }

@test "an ordinary user's container runs from a directory, as root inside and as that user outside" {
	cp -a "$ROOT" "$HOME_DIR/mine"
	chown -R 65534:65534 "$HOME_DIR/mine"
	[ "$(r --dir "$HOME_DIR/mine" /bin/sh -c 'id -u; cat /etc/origin; echo new >/etc/origin; cat /etc/origin')" = $'0\nimage\nnew' ]
	[ "$(cat "$HOME_DIR/mine/etc/origin")" = image ]
	[ "$(r --dir "$ROOT" /bin/sh -c "cut -c1-32 /proc/self/uid_map" | tr -s ' ')" = " 0 65534 1" ]
}

@test "it is confined as root's is" {
	[ "$(r --dir "$ROOT" /bin/sh -c "grep CapBnd /proc/self/status | cut -f2; grep NoNewPrivs /proc/self/status | cut -f2; grep Seccomp: /proc/self/status | cut -f2")" = $'00000000a80425fb\n1\n2' ]
	run r --dir "$ROOT" /bin/probe syscalls
	[ "$(grep -E ': (ok|E2BIG|EFAULT|EINVAL)$' <<<"$output" | cut -d: -f1 | tr '\n' ' ')" = "getpid socket-unix socket-inet socket-raw memfd_create getxattrat clone-plain chroot " ]
	[ -z "$(r --dir "$ROOT" /bin/sh -c '(echo 1 >/proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote; head -c 1 /proc/kcore 2>/dev/null; chmod 000 /dev/null 2>/dev/null && echo changed; true')" ]
	mkdir -m 777 "$BATS_TEST_TMPDIR/out"
	cp "$PROBE" "$HOME_DIR/agent"
	chown 65534 "$HOME_DIR/agent"
	before=$(sha256sum <"$HOME_DIR/agent")
	r --agent "$HOME_DIR/agent" --bind "$BATS_TEST_TMPDIR/out:/out" --dir "$ROOT" /bin/true || true
	cat "$BATS_TEST_TMPDIR/out/result"
	grep -Eq '^write-while-running: E' "$BATS_TEST_TMPDIR/out/result"
	grep -Eq '^write-later: E' "$BATS_TEST_TMPDIR/out/result"
	grep -Eq '^truncate: E' "$BATS_TEST_TMPDIR/out/result"
	[ "$(sha256sum <"$HOME_DIR/agent")" = "$before" ]
}

@test "an image is unpacked once, has the same files, and is removed again" {
	r --unpack "$SHARED/image:$HOME_DIR/tree"
	diff -r --no-dereference "$ROOT" "$HOME_DIR/tree"
	inode=$(stat -c %i "$HOME_DIR/tree")
	r --unpack "$SHARED/image:$HOME_DIR/tree"
	[ "$(stat -c %i "$HOME_DIR/tree")" = "$inode" ]
	mkdir "$HOME_DIR/changes"
	chown 65534 "$HOME_DIR/changes"
	r --dir "$HOME_DIR/tree" --upper "$HOME_DIR/changes" /bin/sh -c 'mkdir -p /a/b; chmod 000 /a/b; touch /c; rm /bin/tty'
	[ "$(r --dir "$HOME_DIR/tree" --upper "$HOME_DIR/changes" /bin/sh -c 'ls -d /a/b /c; ls /bin/tty 2>/dev/null')" = $'/a/b\n/c' ]
	r --remove "$HOME_DIR/changes"
	r --remove "$HOME_DIR/tree"
	[ -z "$(ls -A "$HOME_DIR")" ]
}

@test "a broken image is refused and leaves nothing" {
	for size in 0 100 2000 5000 20000; do
		head -c $size "$SHARED/image" >"$HOME_DIR/short"
		run r --unpack "$HOME_DIR/short:$HOME_DIR/tree"
		[ "$status" -eq 125 ]
		[[ "$output" == *EROFS* ]]
	done
	rm -f "$HOME_DIR/short"
	[ -z "$(ls -A "$HOME_DIR")" ]
}

@test "an EROFS file, which no ordinary user may mount, is refused in a sentence" {
	run r --image "$SHARED/image" /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *erofs* ]]
}

@test "what cannot be limited is not run with a limit" {
	run r --dir "$ROOT" --memory 100000000 /bin/true
	[ "$status" -eq 0 ] || [[ "$output" == *"limits of memory"* || "$output" == *"control groups"* ]]
}
