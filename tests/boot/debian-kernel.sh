#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Debian's own kernel, as its package has it, boots to a shell under the software CPU: the machine is an ordinary one. The package is
# downloaded and unpacked here, never installed.
#   debian-kernel.sh MONITOR VMM-RUN CPUS
set -eu -o pipefail
monitor=$(realpath "$1") vmm_run=$(realpath "$2") cpus=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
skip() { echo "skipped: $*"; exit 77; }

[ -x /bin/busybox ] || skip "no busybox (Debian's package busybox-static)"
cd "$dir"
package=$(apt-cache depends linux-image-6.12-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$package" ] || package=$(apt-cache search --names-only '^linux-image-6\.12.*cloud-amd64$' | awk '{ print $1 }' | sort -V | tail -n1)
[ -n "$package" ] || skip "this host's package lists have no linux-image-6.12 for cloud-amd64"
apt-get download -q "$package" >download.log 2>&1 || skip "cannot download $package: $(tail -n1 download.log)"
dpkg-deb -x ./*.deb root
kernel=$(echo root/boot/vmlinuz-*)

mkdir -p ir/bin ir/dev ir/proc ir/sys
cp /bin/busybox ir/bin/
for a in sh mount uname poweroff nproc expr; do ln -s busybox ir/bin/$a; done
cat >ir/init <<'EOF'
#!/bin/sh
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1 </dev/console
mount -t proc proc /proc
echo "shell: $(uname -r) on $(nproc) CPUs, 6 * 7 = $(expr 6 \* 7)"
poweroff -f
EOF
chmod +x ir/init
(cd ir && find . | cpio -o -H newc --quiet) >ir.cpio

rc=0
CAISSON_VMM=$monitor "$vmm_run" --accel soft --cpus "$cpus" -m 512 --kernel "$kernel" --initrd ir.cpio \
	--cmdline 'console=ttyS0 quiet panic=-1' --timeout 300 >out 2>&1 || rc=$?
release=${kernel##*vmlinuz-}
if [ $rc -ne 0 ] || ! grep -q "shell: $release on $cpus CPUs, 6 \* 7 = 42" out; then
	echo "Debian's $release did not reach its shell and power off (status $rc). The end of its console:"
	tail -n 30 out
	exit 1
fi
grep 'shell:' out
