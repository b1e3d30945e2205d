#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# virtio-net under Linux: a guest of the monitor on a tap in a network namespace of its own, both ways over IPv4 and IPv6, with
# segmentation and checksum offloads, one queue pair a vCPU.
#
#   linux-net.sh CAISSON_VMM VMM_RUN VMLINUX ACCEL CPUS [QUEUES]
set -u
if [ "${1:-}" != --inside ]; then
	[ "$(id -u)" = 0 ] || { echo "skipped: a tap device needs root"; exit 77; }
	[ -c /dev/net/tun ] || { echo "skipped: there is no /dev/net/tun"; exit 77; }
	[ -f "$3" ] || { echo "skipped: the guest kernel is not built ($3)"; exit 77; }
	for p in ip busybox python3; do command -v $p >/dev/null || { echo "skipped: there is no $p"; exit 77; }; done
	exec unshare --net --mount "$0" --inside "$@"
fi
shift
vmm=$1 run=$2 kernel=$3 accel=$4 cpus=$5 queues=${6:-$5}
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null; rm -rf "$dir"' EXIT
fail() { echo "not ok: $*"; exit 1; }

head -c $((8 << 20)) /dev/urandom >"$dir/data"
sum=$(sha256sum <"$dir/data" | cut -d' ' -f1)

cat >"$dir/init" <<'SCRIPT'
#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
echo "guest: mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu) queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip addr add 10.77.0.2/24 dev eth0; ip -6 addr add fd77::2/64 dev eth0
ip link set eth0 up
sleep 1
ping -c 3 -W 5 -q 10.77.0.1 && echo "guest: ping4 ok"
ping -c 3 -W 5 -q fd77::1 && echo "guest: ping6 ok"
ping -c 3 -W 5 -q -s 8000 10.77.0.1 && echo "guest: fragments ok"
for i in 1 2 3; do wget -q -O - http://10.77.0.1:8000/data | sha256sum | sed 's/^/guest: down /'; done
wget -q -O /tmp/data "http://[fd77::1]:8000/data" && sha256sum </tmp/data | sed 's/^/guest: down6 /'
for i in 1 2 3 4; do (nc 10.77.0.1 $((9000 + i)) </tmp/data; echo "guest: up $i done") & done
wait
echo "guest: sums $(cat /sys/class/net/eth0/statistics/rx_errors) $(cat /sys/class/net/eth0/statistics/tx_errors)"
ip link set eth0 down; ip link set eth0 up; sleep 1
ping -c 2 -W 5 -q 10.77.0.1 && echo "guest: again ok"
poweroff -f
SCRIPT
python3 "$here/busybox_initramfs.py" "$(command -v busybox)" "$dir/init" "$dir/initrd" || fail "no initramfs"

ip link set lo up
flags="mode tap"
[ "$queues" = 1 ] || flags="mode tap multi_queue"
ip tuntap add tap0 $flags vnet_hdr || fail "cannot make a tap"
ip addr add 10.77.0.1/24 dev tap0; ip -6 addr add fd77::1/64 dev tap0 nodad; ip link set tap0 up
(cd "$dir" && exec python3 -c '
import http.server, socket
class S(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class H(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
S(("::", 8000), H).serve_forever()') & pids="$pids $!"
python3 -c '
import hashlib, socket, threading, sys
def one(i):
    s = socket.create_server(("10.77.0.1", 9000 + i)); c, _ = s.accept(); h = hashlib.sha256()
    while True:
        b = c.recv(1 << 16)
        if not b: break
        h.update(b)
    c.close()
    print(h.hexdigest(), flush=True)
t = [threading.Thread(target=one, args=(i,)) for i in range(1, 5)]
[x.start() for x in t]; [x.join() for x in t]' >"$dir/up" & up=$!
pids="$pids $up"

net=tap:tap0
[ "$queues" = 1 ] || net=$net,$queues
cmdline="$(cat "$here/../../kernel/cmdline")"
CAISSON_VMM=$vmm timeout -k 5 240 "$run" --accel "$accel" --cpus "$cpus" -m 256 --kernel "$kernel" --initrd "$dir/initrd" --net $net \
	--cmdline "${cmdline/console=ttyS0 quiet/console=ttyS0 quiet loglevel=4}" --stats >"$dir/out" 2>"$dir/err" </dev/null
status=$?
tr -d '\r' <"$dir/out" >"$dir/text"
show() { cat "$dir/text"; tail -n 5 "$dir/err"; }
[ $status = 0 ] || { show; fail "the guest ended with status $status"; }
has() { [ "$(grep -c "$1" "$dir/text")" = "${2:-1}" ] || { show; fail "the guest did not say \"$1\" ${2:-1} times"; }; }
# The driver uses no more queue pairs than it has processors.
has "^guest: mac 02:ca:15:50:00:01 mtu 1500 queues $((queues < cpus ? queues : cpus))"
for w in "ping4 ok" "ping6 ok" "fragments ok" "again ok"; do has "^guest: $w"; done
has "^guest: down $sum" 3
has "^guest: down6 $sum"
has "^guest: up . done" 4
has "^guest: sums 0 0"
for i in $(seq 50); do [ "$(wc -l <"$dir/up")" = 4 ] && break; sleep 0.1; done
[ "$(grep -c "^$sum$" "$dir/up")" = 4 ] || fail "what arrived here is not what the guest sent: $(cat "$dir/up")"
grep "net rx" "$dir/err" | tail -n 1
echo ok
