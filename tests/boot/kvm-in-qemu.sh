#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The KVM backend on a KVM with a hardware's interface: QEMU emulates a processor with SVM, Debian's kernel in it has kvm-amd,
# and there the backend's own tests, test guests and the monitor with a whole guest kernel run. Not among the guests are those
# that look at what QEMU's processor does differently from a real one (error codes of reserved bits, canonical MSRs, CR8, null
# task registers, the flags of a nested SYSCALL) and code changed across CPUs, which QEMU misses when it is nested.
#   kvm-in-qemu.sh MONITOR VMM-RUN RUN-GUEST TEST-KVM KERNEL INITRAMFS GUEST.elf...
set -eu -o pipefail
vmm=$(realpath "$1") run=$(realpath "$2") run_guest=$(realpath "$3") test_kvm=$(realpath "$4") kernel=$5 initramfs=$(realpath "$6")
shift 6
guests=()
for g; do guests+=("$(realpath "$g")"); done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
skip() { echo "skipped: $*"; exit 77; }

command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
[ -x /bin/busybox ] || skip "no busybox (Debian's package busybox-static)"
[ -e "$kernel" ] || skip "no guest kernel at $kernel (make kernel builds it)"
kernel=$(realpath "$kernel")
cd "$dir"
package=$(apt-cache depends linux-image-6.12-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$package" ] || package=$(apt-cache search --names-only '^linux-image-6\.12.*cloud-amd64$' | awk '{ print $1 }' | sort -V | tail -n1)
[ -n "$package" ] || skip "this host's package lists have no linux-image-6.12 for cloud-amd64"
apt-get download -q "$package" >download.log 2>&1 || skip "cannot download $package: $(tail -n1 download.log)"
dpkg-deb -x ./*.deb root

mkdir -p ir/r/{bin,dev,proc,sys,tmp,ko,g} ir/bin
cp /bin/busybox ir/bin/
for a in sh mount switch_root mv; do ln -s busybox ir/bin/$a; done
cp /bin/busybox ir/r/bin/
for a in sh mount insmod poweroff tail dmesg cat; do ln -s busybox ir/r/bin/$a; done
for k in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/kvm-amd; do
	xz -dc root/lib/modules/*/kernel/$k.ko.xz >ir/r/ko/${k##*/}.ko
done
cp "$vmm" ir/r/bin/caisson-vmm
cp "$run" ir/r/bin/vmm-run
cp "$run_guest" ir/r/bin/run-guest
cp "$test_kvm" ir/r/bin/test_kvm
cp "$initramfs" ir/r/initramfs
cp "$kernel" ir/r/vmlinux
cp "${guests[@]}" ir/r/g/
# The libraries of those programs that are not static.
for f in ir/r/bin/vmm-run ir/r/bin/run-guest ir/r/bin/test_kvm; do
	{ ldd "$f" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "ir/r$(dirname "$lib")"
		cp -Lu "$lib" "ir/r$lib"
	done
done
# The monitor's jail changes the root, which cannot be done from an initramfs itself: everything moves to a tmpfs first.
cat >ir/init <<'EOI'
#!/bin/sh
mkdir() { /bin/busybox mkdir "$@"; }
mkdir /new
mount -t tmpfs t /new
/bin/busybox cp -a /r/. /new/
/bin/busybox rm -r /r
exec switch_root /new /bin/init
EOI
cat >ir/r/bin/init <<'EOI'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
for k in irqbypass kvm kvm-amd; do insmod /ko/$k.ko; done
caisson-vmm --probe
test_kvm >/tmp/log 2>&1 && echo "passed: test_kvm" || cat /tmp/log
for g in /g/*.elf; do
	run-guest --accel kvm --timeout 60 $g >/tmp/log 2>&1 && echo "passed: ${g##*/}" || { echo "FAILED: ${g##*/}"; cat /tmp/log; }
done
for cpus in 1 2; do
	vmm-run --vmm /bin/caisson-vmm --accel kvm --cpus $cpus -m 128 --kernel /vmlinux --initrd /initramfs --timeout 100 \
		--cmdline 'console=ttyS0 quiet panic=-1 reboot=k tsc=reliable no_timer_check' >/tmp/log 2>&1
	[ $? = 12 ] && busybox grep -q 'linux-init: done' /tmp/log && echo "passed: linux $cpus" || cat /tmp/log
done
poweroff -f
EOI
chmod +x ir/init ir/r/bin/init
(cd ir && find . | cpio -o -H newc --quiet) | gzip -1 >ir.cpio
timeout 560 qemu-system-x86_64 -M q35 -accel tcg -cpu max,-la57 -smp 2 -m 1500 -nographic -no-reboot -kernel root/boot/vmlinuz-* \
	-initrd ir.cpio -append 'console=ttyS0 quiet mitigations=off panic=-1' </dev/null >out 2>&1 || true
want=$((${#guests[@]} + 3))
got=$(grep -c '^passed: ' out || true)
grep -a -e '"boundary"' -e '^passed: ' out || true
if [ "$got" != "$want" ] || ! grep -q '"boundary":"hardware"' out; then
	echo "FAILED: $got of $want passed. The end of the console:"
	tail -n 60 out
	exit 1
fi
