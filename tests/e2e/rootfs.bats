#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# --rootfs: directories, their cached images, and files.

load helper
setup_file() {
	e2e_setup_file
	command -v mkfs.erofs >/dev/null || return 0
	export TREE=$BATS_FILE_TMPDIR/tree
	mkdir -p "$TREE/bin" "$TREE/etc" "$TREE/tmp"
	cp /bin/busybox "$TREE/bin/busybox"
	for a in sh cat echo ls true stat id touch; do ln -s busybox "$TREE/bin/$a"; done
	echo 'root:x:0:0:root:/:/bin/sh' >"$TREE/etc/passwd"
	echo first >"$TREE/etc/message"
}
setup() {
	e2e_setup
	command -v mkfs.erofs >/dev/null || skip "mkfs.erofs is not installed"
	[ -x /bin/busybox ] || skip "busybox-static is not installed"
}
teardown() { nothing_left; }

images() { ls "$XDG_CACHE_HOME/caisson/rootfs" | grep -c '\.erofs$' || true; }

@test "an unchanged directory is made into an image once" {
	sandbox --rootfs "$TREE" -- true
	[ "$(images)" -eq 1 ]
	sandbox --rootfs "$TREE" -- true
	sandbox --rootfs "$TREE/" -- true
	(cd "$TREE" && sandbox --rootfs . -- true)
	[ "$(images)" -eq 1 ]
}

@test "a changed file is seen by the next run" {
	[ "$E2E_ENGINE" = real ] && [ "$(sandbox --rootfs "$TREE" -- cat /etc/message)" = first ]
	n=$(images)
	for text in other third; do # same length, at once: only mtime and ctime tell
		echo $text >"$TREE/etc/message"
		if [ "$E2E_ENGINE" = real ]; then
			[ "$(sandbox --rootfs "$TREE" -- cat /etc/message)" = $text ]
		else
			sandbox --rootfs "$TREE" -- true
		fi
	done
	[ "$(images)" -eq $((n + 2)) ]
}

@test "a new name, a new mode and a removed file make a new image" {
	sandbox --rootfs "$TREE" -- true
	n=$(images)
	: >"$TREE/etc/new"; sandbox --rootfs "$TREE" -- true
	chmod 600 "$TREE/etc/new"; sandbox --rootfs "$TREE" -- true
	rm "$TREE/etc/new"; sandbox --rootfs "$TREE" -- true
	[ "$(images)" -eq $((n + 3)) ]
}

@test "runs at the same time share one image" {
	rm -rf "$XDG_CACHE_HOME/caisson/rootfs"
	for i in 1 2 3 4; do sandbox --rootfs "$TREE" -m 128M -- true 3>&- & done
	wait
	[ "$(images)" -eq 1 ]
}

@test "the cache is bounded" {
	for i in $(seq 20); do
		echo $i >"$TREE/etc/counter"
		[ "$E2E_ENGINE" = fake ] || [ $i -gt 17 ] || continue
		sandbox --rootfs "$TREE" -- true
	done
	[ "$(images)" -le 16 ]
}

@test "a directory with another file system mounted in it is refused" {
	[ "$(id -u)" -eq 0 ] || skip "needs root to mount"
	mkdir -p "$TREE/mnt"
	mount -t tmpfs none "$TREE/mnt" 2>/dev/null || skip "this host does not let us mount"
	run sandbox --rootfs "$TREE" -- true
	umount "$TREE/mnt"
	[ "$status" -eq 125 ]
	[[ $output == *"another mounted file system"* ]]
}

@test "what the guest writes stays in the guest" {
	needs_real
	run sandbox --rootfs "$TREE" -- sh -c 'echo changed >/etc/message; touch /new; cat /etc/message'
	[ "$output" = changed ]
	[ ! -e "$TREE/new" ]
	[ "$(sandbox --rootfs "$TREE" -- cat /etc/message)" != changed ]
}

@test "EROFS and ext4 files are root file systems" {
	needs_real
	mkfs.erofs --quiet "$BATS_TEST_TMPDIR/e" "$TREE" >/dev/null
	[ "$(sandbox --rootfs "$BATS_TEST_TMPDIR/e" -- cat /etc/message)" = "$(cat "$TREE/etc/message")" ]
	PATH=$PATH:/sbin:/usr/sbin
	command -v mke2fs >/dev/null || skip "e2fsprogs is not installed"
	mke2fs -q -t ext4 -d "$TREE" "$BATS_TEST_TMPDIR/x" 32M
	before=$(sha256sum <"$BATS_TEST_TMPDIR/x")
	[ "$(sandbox --rootfs "$BATS_TEST_TMPDIR/x" -- sh -c 'echo w >/etc/w; cat /etc/message')" = "$(cat "$TREE/etc/message")" ]
	[ "$(sha256sum <"$BATS_TEST_TMPDIR/x")" = "$before" ]
}

@test "an ordinary user's tree belongs to root inside, and no privilege is needed" {
	[ "$(id -u)" -eq 0 ] || skip "needs root to become another user"
	needs_real
	user_dir=$(mktemp -d)
	chmod 755 "$user_dir"
	cp -r "$TREE" "$user_dir/tree"
	chown -R 1234:1234 "$user_dir"
	run env -i HOME="$user_dir" PATH="$PATH" CAISSON_ROOT="$user_dir/run" ${CAISSON_SHARE:+CAISSON_SHARE=$CAISSON_SHARE} \
		setpriv --reuid 1234 --regid 1234 --clear-groups "$CAISSON" run $E2E_FLAGS --rootfs "$user_dir/tree" -- stat -c %u:%g /etc/message
	rm -rf "$user_dir"
	[ "$status" -eq 0 ]
	[ "$output" = 0:0 ]
}
