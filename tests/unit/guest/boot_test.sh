#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots the guest kernel with the agent as PID 1 in QEMU, whose machine is not ours, with each kind of root; checks what the guest
# reports. usage: boot_test.sh KERNEL INITRAMFS TEST-INITRAMFS BUSYBOX-EROFS
set -eu
kernel=$1 initramfs=$2 test_initramfs=$3 busybox=$4
skip() { echo "skipped: $1"; exit 77; }
[ -e "$kernel" ] || skip "no guest kernel at $kernel (make kernel builds it)"
command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
command -v mkfs.ext4 >/dev/null || skip "no mkfs.ext4"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# boot SECONDS-AT-MOST END-LINE INITRAMFS COMMAND-LINE DISK READONLY: the console in $tmp/log, until a line that holds END-LINE.
boot() {
	: >"$tmp/log"
	qemu-system-x86_64 -M microvm,acpi=off,pit=on,pic=on,rtc=on -accel tcg -m 256 -nographic -no-reboot -kernel "$kernel" \
		-initrd "$3" -append "console=ttyS0 quiet tsc=reliable panic=-1 $4" \
		-drive "id=d,file=$5,format=raw,if=none,readonly=$6" -device virtio-blk-device,drive=d </dev/null >"$tmp/log" 2>&1 &
	pid=$!
	n=0
	while [ $n -lt $(($1 * 10)) ] && ! grep -q "$2" "$tmp/log" && kill -0 $pid 2>/dev/null; do
		sleep 0.1
		n=$((n + 1))
	done
	kill $pid 2>/dev/null || true
	wait $pid 2>/dev/null || true
}
expect() {
	for line; do
		tr -d '\r' <"$tmp/log" | grep -qF -- "$line" || { echo "FAILED: $what: no \"$line\" in:"; cat "$tmp/log"; exit 1; }
	done
	echo "ok: $what"
}
done_line='System halted\|Power down'

what="the agent says that it is ready when asked to, and stays without a vsock"
boot 30 'cannot reach' "$initramfs" "caisson.hello" "$busybox" on
expect "caisson-init: ready" "caisson-init: cannot reach the monitor"

what="EROFS under an overlay"
boot 30 "$done_line" "$test_initramfs" "boottest.mode=overlay boottest.dev=/dev/vda" "$busybox" on
expect "user 0 host sandbox year 2030" "mount / overlay rw" "mount /proc proc rw" "mount /sys/fs/cgroup cgroup2 rw" \
	"mount /dev/pts devpts rw" "mount /dev/shm tmpfs rw" "mount /dev/mqueue mqueue rw" "link /dev/fd /proc/self/fd" \
	"mode /tmp 1777" "mode /dev/ptmx 666" "127.0.1.1	sandbox" "writable" "loopback up" "oom self 0" \
	"boottest: exit 5 signal 0" "/dev/pts/0" "11 22" "boottest: exit 0 signal 0"

what="EROFS read-only"
boot 30 "$done_line" "$test_initramfs" "boottest.mode=readonly boottest.dev=/dev/vda" "$busybox" on
expect "mount / erofs ro" "read-only" "mount /tmp tmpfs rw" "mount /run tmpfs rw" "boottest: exit 5 signal 0"

what="ext4 written to directly and left clean"
mkdir -p "$tmp/tree/bin" "$tmp/tree/root"
cp /bin/busybox "$tmp/tree/bin/busybox"
for applet in sh id hostname date awk ls stat cat sed touch ping tty stty sleep; do ln "$tmp/tree/bin/busybox" "$tmp/tree/bin/$applet"; done
truncate -s 16M "$tmp/disk"
mkfs.ext4 -q -d "$tmp/tree" "$tmp/disk"
boot 30 "$done_line" "$test_initramfs" "boottest.mode=direct boottest.dev=/dev/vda" "$tmp/disk" off
expect "mount / ext4 rw" "writable" "mode /tmp 1777" "boottest: exit 5 signal 0"
e2fsck -fn "$tmp/disk" >"$tmp/fsck" 2>&1 || { echo "FAILED: $what"; cat "$tmp/fsck"; exit 1; }
debugfs -R "stat /root/w" "$tmp/disk" 2>/dev/null | grep -q "Type: regular" || { echo "FAILED: $what: the file is lost"; exit 1; }

what="a disk without a file system is refused with a sentence"
truncate -s 1M "$tmp/zero"
boot 30 "$done_line" "$test_initramfs" "boottest.mode=overlay boottest.dev=/dev/vda" "$tmp/zero" on
expect "boottest: error 6: the root disk /dev/vda holds neither an EROFS nor an ext4 file system"

what="a root whose /dev is a link elsewhere is refused"
ln -s /rw "$tmp/tree/dev"
rm -f "$tmp/disk"
truncate -s 16M "$tmp/disk"
mkfs.ext4 -q -d "$tmp/tree" "$tmp/disk"
boot 30 "$done_line" "$test_initramfs" "boottest.mode=overlay boottest.dev=/dev/vda" "$tmp/disk" on
expect "boottest: error 6: /dev of the root file system is not a directory"
