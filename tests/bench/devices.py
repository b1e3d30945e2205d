#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: network and disk of a guest, beside QEMU's microvm under TCG with the same kernel, initramfs, tap and disk.

    devices.py [--runs N] [--seconds N] [--scale N] [--only net,disk] [--json FILE] [--quick]

  net   iperf3 in the guest against iperf3 on the host, through virtio-net on a tap with checksum and segmentation offloads, both directions, one
        vCPU, one queue; megabits a second as the host saw them. In a network namespace of its own.
  disk  tests/bench/guest/io.c on an ext4 disk of its own (virtio-blk, through the host's page cache, flushes to the disk): sequential writing and
        reading, random direct reads and writes of 4 KiB, fdatasync after each 4 KiB, making and removing small files; times taken on the host from
        the lines on the serial console.

The two take turns; medians, and the ratio Caisson / QEMU of what was done in a second: above 1 Caisson is faster.
"""
import argparse
import fcntl
import json
import os
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench  # noqa: E402
import control  # noqa: E402

HOST, GUEST, MAC = "10.99.0.1", "10.99.0.2", "02:ca:15:be:9c:01"
LAST_LINE = b"caisson-bench: done"
DISK_MIB = 512

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
echo "caisson-bench: PID 1"
/bin/busybox ip link set lo up
/bin/busybox ip addr add %s/24 dev eth0
/bin/busybox ip link set eth0 up
n=0
until /bin/busybox ping -c 1 -W 1 %s >/dev/null || [ $n = 20 ]; do n=$((n + 1)); done
/bin/iperf3 -c %s -t $1 $2 >/dev/null 2>/tmp/err || { echo "iperf3 failed:"; /bin/busybox cat /tmp/err; }
echo "caisson-bench: done"
/bin/busybox poweroff -f
""" % (GUEST, HOST, HOST)


# --- What is in the guest ---------------------------------------------------------------------------------------------------


def directories(entries):
    """The entries with the directories that they need, each before what is in it."""
    made, out = set(), []
    for name, mode, rdev, data in entries:
        parts = name.split("/")
        for k in range(1, len(parts)):
            d = "/".join(parts[:k])
            if d not in made:
                made.add(d)
                out.append((d, 0o40755, None, b""))
        out.append((name, mode, rdev, data))
    return out


def content(path):
    with open(path, "rb") as f:
        return f.read()


def net_initrd(path):
    iperf = shutil.which("iperf3")
    entries = [("init", 0o100755, None, INIT.encode()), ("dev/console", 0o20600, (5, 1), b""),
               ("bin/busybox", 0o100755, None, content(shutil.which("busybox"))), ("bin/iperf3", 0o100755, None, content(iperf))]  # fmt: skip
    for line in subprocess.run(["ldd", iperf], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
        words = line.split()
        library = words[2] if "=>" in words else words[0]
        if library.startswith("/"):
            entries.append((library.lstrip("/"), 0o100755, None, content(os.path.realpath(library))))
    with open(path, "wb") as f:
        f.write(bench.newc(directories(entries)))


def disk_initrd(path, folder):
    program, source = os.path.join(folder, "io"), os.path.join(ROOT, "tests/bench/guest/io.c")
    subprocess.run(["musl-gcc", "-O2", "-static", "-s", "-Wall", "-o", program, source], check=True)
    with open(path, "wb") as f:
        f.write(bench.newc(directories([("dev/console", 0o20600, (5, 1), b""), ("init", 0o100755, None, content(program))])))


# --- The two monitors, with a device each -----------------------------------------------------------------------------------


class Tap:
    IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 2, 0x1000, 0x4000
    TUNSETIFF, TUNSETVNETHDRSZ, TUNSETOFFLOAD = 0x400454CA, 0x400454D8, 0x400454D0
    # virtio 1.2 section 5.1.3: CSUM, GUEST_CSUM, GUEST_TSO4/6, GUEST_ECN, HOST_TSO4/6, HOST_ECN
    FEATURES = sum(1 << b for b in (0, 1, 7, 8, 9, 11, 12, 13))

    def __init__(self):
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        for k in range(100):  # the last one goes when every process that had it is gone
            try:
                fcntl.ioctl(self.fd, self.TUNSETIFF, struct.pack("16sH22x", b"bench0", self.IFF_TAP | self.IFF_NO_PI | self.IFF_VNET_HDR))
                break
            except OSError:
                if k == 99:
                    raise
                time.sleep(0.05)
        fcntl.ioctl(self.fd, self.TUNSETVNETHDRSZ, struct.pack("i", 12))
        fcntl.ioctl(self.fd, self.TUNSETOFFLOAD, 1 | 2 | 4 | 8)  # CSUM, TSO4, TSO6, TSO_ECN
        for words in (["addr", "add", HOST + "/24", "dev", "bench0"], ["link", "set", "bench0", "up"]):
            subprocess.run(["ip"] + words, check=True)

    def close(self):
        os.close(self.fd)


class Qemu(bench.Qemu):
    # Where its machine has virtio devices. It would say so itself, but at the end of the command line, where init's arguments are.
    EXTRA = bench.Qemu.EXTRA + "".join("virtio_mmio.device=512@0x%x:%d " % (0xFEB00000 + 512 * k, 5 + k) for k in range(8))

    def __init__(self, kernel, initrd, args, tap=None, disk=None):
        self.extra, self.fds = ["-machine", "auto-kernel-cmdline=off"], []
        if tap:
            os.set_inheritable(tap.fd, True)
            self.fds = [tap.fd]
            self.extra += ["-netdev", "tap,id=n0,fd=%d" % tap.fd, "-device", "virtio-net-device,netdev=n0,mac=" + MAC]
        if disk:
            self.extra += ["-drive", "id=d0,if=none,format=raw,cache=writeback,file=" + disk, "-device", "virtio-blk-device,drive=d0"]
        super().__init__(kernel, initrd, args)

    def more(self):
        return self.extra

    def pass_fds(self):
        return self.fds


class Caisson(bench.Caisson):
    def __init__(self, kernel, initrd, args, tap=None, disk=None):
        self.nets = [(bytes.fromhex(MAC.replace(":", "")), [tap.fd], Tap.FEATURES)] if tap else []
        self.disks = [(os.open(disk, os.O_RDWR | os.O_CLOEXEC), 0, "bench")] if disk else []
        try:
            super().__init__(kernel, initrd, args)
        finally:
            for fd, _, _ in self.disks:
                os.close(fd)

    def devices(self):
        return {"disks": self.disks, "nets": self.nets}


# --- Measurements -----------------------------------------------------------------------------------------------------------


def net_once(monitor, kernel, initrd, seconds, reverse):
    """Megabits a second, as the host saw them."""
    tap = Tap()
    server = subprocess.Popen(["iperf3", "-s", "-1", "-J", "-B", HOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    m = None
    try:
        time.sleep(0.2)
        m = monitor(kernel, initrd, "%d %s" % (seconds, "-R" if reverse else ""), tap=tap)
        m.console.wait_for(LAST_LINE, 60 + 4 * seconds)
        if b"iperf3 failed" in m.console.text:
            raise RuntimeError(m.console.text[m.console.text.index(b"iperf3 failed") :].decode(errors="replace").strip()[:300])
        out, err = server.communicate(timeout=20)
        end = json.loads(out)["end"]
        return end["sum_sent" if reverse else "sum_received"]["bits_per_second"] / 1e6
    finally:
        if m:
            m.close()
        if server.poll() is None:
            server.kill()
            server.wait()
        tap.close()


def stamps(console, timeout):
    """[(time, line)] of the console until the last line."""
    end, lines, rest = time.monotonic() + timeout, [], b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([console.fd], [], [], left)[0]:
            raise TimeoutError("not done in time; last output: %r" % rest[-300:])
        data, now = os.read(console.fd, 65536), time.monotonic()
        if not data:
            raise EOFError("the monitor ended; last lines: %r" % lines[-3:])
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            lines.append((now, line.decode(errors="replace").strip()))
            if LAST_LINE in line:
                return lines
            if line.startswith(b"io failed"):
                raise RuntimeError(line.decode(errors="replace"))


def disk_once(monitor, kernel, initrd, scale, work):
    """{name: (amount a second, unit)}"""
    disk, found, begun = os.path.join(work, "disk"), {}, None
    with open(disk, "wb") as f:
        f.truncate(DISK_MIB << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,nodiscard", disk], check=True)
    os.sync()
    m = monitor(kernel, initrd, str(scale), disk=disk)
    try:
        for now, line in stamps(m.console, 120 * scale):
            word = line.split()
            if len(word) == 3 and word[0] == "io" and word[2] == "start":
                begun = now
            elif len(word) == 5 and word[0] == "io" and word[2] == "end":
                found[word[1]] = (int(word[3]) / (now - begun), word[4])
        return found
    finally:
        m.close()
        os.unlink(disk)


def take_turns(monitors, runs, once):
    """{what: {monitor: [figures]}} of a function that returns {what: (figure, unit)}."""
    result, units = {}, {}
    for _ in range(runs):
        for m in monitors:
            for what, (figure, unit) in once(m).items():
                result.setdefault(what, {}).setdefault(m.name, []).append(figure)
                units[what] = unit
    table = {}
    for what, figures in result.items():
        table[what] = {"unit": units[what]}
        for name, all_ in figures.items():
            table[what][name] = statistics.median(all_)
        if "caisson" in figures and table[what].get("qemu"):
            table[what]["ratio"] = table[what]["caisson"] / table[what]["qemu"]
    return table


def report(title, table):
    print("\n" + title)
    print("  %-16s %-16s %12s %12s %16s" % ("", "", "caisson", "qemu", "caisson / qemu"))
    for what, t in table.items():
        print("  %-16s %-16s %12s %12s %16s" % (what, t["unit"], bench.cell(t.get("caisson")), bench.cell(t.get("qemu")),
                                               bench.cell(t.get("ratio"), "%.2f")))  # fmt: skip


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--seconds", type=int, default=5, help="of each iperf3")
    a.add_argument("--scale", type=int, default=2)
    a.add_argument("--only", default="net,disk")
    a.add_argument("--monitors", default="caisson,qemu")
    a.add_argument("--kernel", default=os.path.join(bench.BUILD, "kernel/vmlinux"))
    a.add_argument("--json")
    a.add_argument("--quick", action="store_true", help="one run of each, to see that everything runs")
    a = a.parse_args()
    if a.quick:
        a.runs, a.seconds, a.scale = 1, 2, 1
    if "net" in a.only and os.geteuid() == 0 and not os.environ.get("CAISSON_BENCH_NETNS"):
        os.environ["CAISSON_BENCH_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable] + sys.argv)
    bench.reserve_control_fd()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    monitors = [m for m in (Caisson, Qemu) if m.name in a.monitors.split(",")]
    if not shutil.which("qemu-system-x86_64"):
        print("devices: QEMU is not measured: it is not installed")
        monitors = [m for m in monitors if m is not Qemu]
    work, result, failed = tempfile.mkdtemp(prefix="caisson-bench-devices-", dir="/var/tmp"), {}, 0
    initrd = os.path.join(work, "initrd")

    def net(m):
        return {
            "guest to host": (net_once(m, a.kernel, initrd, a.seconds, False), "Mbit/s"),
            "host to guest": (net_once(m, a.kernel, initrd, a.seconds, True), "Mbit/s"),
        }

    try:
        for part in a.only.split(","):
            try:
                if part == "net":
                    missing = [p for p in ("iperf3", "busybox", "ip") if not shutil.which(p)] + (["root"] if os.geteuid() else [])
                    if missing:
                        print("\nnetwork: not measured: there is no " + ", ".join(missing))
                        continue
                    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                    net_initrd(initrd)
                    result[part] = take_turns(monitors, a.runs, net)
                    report("iperf3 through virtio-net on a tap, one vCPU, %d s, %d runs" % (a.seconds, a.runs), result[part])
                else:
                    disk_initrd(initrd, work)
                    result[part] = take_turns(monitors, a.runs, lambda m: disk_once(m, a.kernel, initrd, a.scale, work))
                    report("files on an ext4 disk in the guest, a second's work, %d runs" % a.runs, result[part])
            except (OSError, RuntimeError, TimeoutError, EOFError, subprocess.SubprocessError, control.ControlError) as e:
                print("\n%s: not measured: %s" % (part, e))
                failed = 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
