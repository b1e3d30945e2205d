#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots the guest kernel on this host's KVM in the real monitor, to PID 1 and a user program, with the kernel parameters that the probe names.
# usage: linux-kvm.sh CAISSON-VMM VMM-RUN KERNEL INITRAMFS [CPUS]
set -eu
vmm=$1 run=$2 kernel=$3 initramfs=$4 cpus=${5:-1}
skip() { echo "skipped: $1"; exit 77; }
[ -e /dev/kvm ] || skip "there is no /dev/kvm"
[ -r /dev/kvm ] && [ -w /dev/kvm ] || skip "/dev/kvm may not be opened"
[ -e "$kernel" ] || skip "no guest kernel at $kernel (make kernel builds it)"
probe=$("$vmm" --probe)
echo "$probe"
extra=$(printf '%s\n' "$probe" | sed -n 's/.*"cmdline":"\([^"]*\)".*/\1/p')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$(date +%s)
status=0
"$run" --vmm "$vmm" --accel kvm --cpus "$cpus" -m 96 --kernel "$kernel" --initrd "$initramfs" --timeout 840 --cmdline \
	"console=ttyS0 quiet panic=-1 reboot=k tsc=reliable no_timer_check noreplace-smp cpu_init_udelay=0 rcupdate.rcu_expedited=1 $extra" \
	>"$log" 2>&1 </dev/null || status=$?
cat "$log"
echo "took $(($(date +%s) - start)) s, status $status"
for line in 'linux-init: pid 1 is up (0 1)' 'linux-init: sum 1.644933567' 'linux-init: child ended with 7 ' \
	'ms (1)' 'linux-init: done'; do
	grep -qF "$line" "$log" || { echo "FAILED: no \"$line\""; exit 1; }
done
[ $status = 12 ] || { echo "FAILED: the guest did not end with a reset"; exit 1; }
