# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of the container engine. The environment says what is tested:
#   CONTAINER_RUN  the tool that starts a container (tests/tools/container-run.c)
#   CAISSON_INIT   the agent
#   PROBE          what an attacker would try (probe.c)
#   USERNS         auto or never: the container's root is a user of its own on the host, or root

: "${CONTAINER_RUN:?}" "${CAISSON_INIT:?}" "${PROBE:?}"
export USERNS=${USERNS:-auto}

# A root with busybox and the probe, as a directory and as an EROFS file.
container_setup_file() {
	export ROOT=$BATS_FILE_TMPDIR/root IMAGE=$BATS_FILE_TMPDIR/root.erofs
	[ -x /bin/busybox ] || return 0
	make_root "$ROOT"
	command -v mkfs.erofs >/dev/null && mkfs.erofs "$IMAGE" "$ROOT" >/dev/null 2>&1
	chmod 711 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
}

make_root() {
	mkdir -p "$1"/bin "$1"/etc "$1"/tmp "$1"/proc "$1"/sys "$1"/dev "$1"/home
	cp /bin/busybox "$1"/bin/
	cp "$PROBE" "$1"/bin/probe
	local a
	for a in sh cat chmod chown cut echo env find grep head hostname id ip kill ln ls mkdir mknod mount nc ping ps pwd readlink rm seq sleep sort stat su \
		sync tail test touch true tty umount uname wc; do
		ln -s busybox "$1/bin/$a"
	done
	printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n' >"$1"/etc/passwd
	printf 'root:x:0:\nuser:x:1000:\n' >"$1"/etc/group
	echo image >"$1"/etc/origin
	chmod 1777 "$1"/tmp
}

container_setup() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	[ -x /bin/busybox ] || skip "busybox-static is not installed"
	[ -e "$IMAGE" ] || skip "mkfs.erofs is not installed"
	mounts_before=$(wc -l </proc/self/mountinfo)
}

# Nothing on the host: no mount, no loop device, no group.
container_teardown() {
	[ -n "${mounts_before:-}" ] || return 0
	[ "$(wc -l </proc/self/mountinfo)" = "$mounts_before" ]
	! grep -l "$BATS_FILE_TMPDIR" /sys/block/loop*/loop/backing_file 2>/dev/null
	! find /sys/fs/cgroup -type d -path "*/caisson/t-$BATS_ROOT_PID-*" 2>/dev/null | grep .
}

# One name for each call, so that the groups of these tests can be told from others.
c() {
	local id=t-$BATS_ROOT_PID-$BASHPID
	timeout -k 5 60 "$CONTAINER_RUN" --id "$id" --userns "$USERNS" "$@"
}
image() { c --image "$IMAGE" "$@"; }
sh_in() { image /bin/sh -c "$1"; }
