#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: Caisson's monitor beside QEMU's, same kernel, initramfs and command line, on this machine, in this run.

    bench.py [--runs N] [--scale N] [--idle SECONDS] [--only boot,micro,memory,idle] [--json FILE] [--quick]

What is measured, and how (docs/benchmarks.md says why):

  boot     from just before the monitor is started to PID 1's first line on the serial console, seen from outside; the two take turns,
           medians, ratio. Million guest instructions a second: what the monitor counted until that line, over that time.
  micro    tests/bench/guest/micro.c, the same static program natively, as PID 1 in Caisson, as PID 1 in QEMU; best of three
           inside the program; checksums must agree.
  memory   the monitor's proportional set size once PID 1 idles, without guest RAM and without the bounded block cache.
  idle     CPU time the whole monitor process used over some seconds while PID 1 sleeps, as a share of one core.

Whatever cannot be measured here is printed as "not measured" with the reason, never as a number.
"""
import argparse
import json
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import control  # noqa: E402

BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
FIRST_LINE = b"caisson-bench: PID 1"
LAST_LINE = b"caisson-bench: done"
MEM_MIB = 512
SETTLE_S = 15


# --- What both run ----------------------------------------------------------------------------------------------------------


def newc(entries):
    """A cpio archive in the kernel's newc format; entries: (name, mode, device numbers or None, bytes)."""
    out = bytearray()
    for inode, (name, mode, rdev, data) in enumerate(entries + [("TRAILER!!!", 0, None, b"")], start=1):
        major, minor = rdev or (0, 0)
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def build_guest(folder):
    os.makedirs(folder, exist_ok=True)
    micro = os.path.join(folder, "micro")
    source = os.path.join(ROOT, "tests/bench/guest/micro.c")
    if not os.path.exists(micro) or os.path.getmtime(micro) < os.path.getmtime(source):
        subprocess.run(["musl-gcc", "-O2", "-static", "-s", "-Wall", "-o", micro, source], check=True)
    initrd = os.path.join(folder, "bench.cpio")
    with open(micro, "rb") as f:
        program = f.read()
    with open(initrd, "wb") as f:
        f.write(newc([("dev", 0o40755, None, b""), ("dev/console", 0o20600, (5, 1), b""), ("init", 0o100755, None, program)]))
    return micro, initrd


def command_line(init_args):
    with open(os.path.join(ROOT, "kernel/cmdline")) as f:
        line = f.read().strip()
    return line + " rdinit=/init -- " + init_args


# --- The two monitors -------------------------------------------------------------------------------------------------------


class Console:
    """The serial console's output, read until a line shows up."""

    def __init__(self, fd):
        self.fd, self.text = fd, b""

    def wait_for(self, needle, timeout):
        """The time at which needle was seen; TimeoutError or EOFError with the last output otherwise."""
        end = time.monotonic() + timeout
        while needle not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise TimeoutError("not seen: %r; last output: %r" % (needle, self.text[-500:]))
            data = os.read(self.fd, 65536)
            if not data:
                raise EOFError("the monitor ended; last output: %r" % self.text[-500:])
            self.text += data
        return time.monotonic()


class Qemu:
    """The fastest way found to run this kernel under QEMU 7.2 (docs/benchmarks.md has the alternatives that were tried)."""

    name = "qemu"
    # Its machine has a PIT but neither kvmclock nor a TSC-deadline timer, so the kernel calibrates its delay loop and the APIC timer
    # against the PIT, which takes longer than the rest of the boot. These two words spare it that; nothing in Caisson's machine needs them.
    EXTRA = "noapictimer lpj=11500000 "

    def __init__(self, kernel, initrd, args, cpus=1):
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-M", "microvm,acpi=off,pit=on,pic=on,rtc=on", "-accel", "tcg", "-cpu", "max",
            "-m", "%dM" % MEM_MIB, "-smp", str(cpus), "-kernel", kernel, "-initrd", initrd,
            "-append", self.EXTRA + command_line(args), "-serial", "stdio",
        ] + self.more()  # fmt: skip
        self.started = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=self.pass_fds())
        self.console = Console(self.process.stdout.fileno())

    def more(self):
        """Devices, for whoever measures them."""
        return []

    def pass_fds(self):
        return []

    def instructions(self):
        return None

    def code_cache(self):
        return 0

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def reserve_control_fd():
    """Puts something harmless at descriptor 3, so that nothing else is ever opened there."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != control.FD:
        os.dup2(null, control.FD, inheritable=False)
        os.close(null)


class Caisson:
    name = "caisson"

    def __init__(self, kernel, initrd, args, cpus=1, accel=control.ACCEL_SOFT):
        vmm = os.path.join(BUILD, "src/vmm/caisson-vmm")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out_r, out_w = os.pipe()

        # By contract the monitor inherits its socket as descriptor 3, which main() keeps free for that.
        os.dup2(theirs.fileno(), control.FD, inheritable=True)
        self.started = time.monotonic()
        self.process = subprocess.Popen([vmm], stdin=subprocess.DEVNULL, pass_fds=[control.FD])
        reserve_control_fd()
        theirs.close()
        self.control = control.Client(ours)
        fds = {control.FD_KERNEL: os.open(kernel, os.O_RDONLY), control.FD_INITRD: os.open(initrd, os.O_RDONLY),
               control.FD_CONSOLE: out_w}  # fmt: skip
        try:
            self.control.configure(cpus, MEM_MIB << 20, accel, "v2", command_line(args), fds, **self.devices())
        finally:
            for fd in fds.values():
                os.close(fd)
        self.control.start()
        self.console = Console(out_r)

    def devices(self):
        """More for configure(), for whoever measures devices."""
        return {}

    def instructions(self):
        return self.control.query()["instructions"] or None

    def code_cache(self):
        return self.control.query()["code_cache_bytes"]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.control.close()
        os.close(self.console.fd)


# --- Measurements -----------------------------------------------------------------------------------------------------------


def boot_once(monitor, kernel, initrd):
    m = monitor(kernel, initrd, "idle")
    try:
        seconds = m.console.wait_for(FIRST_LINE, 60) - m.started
        return seconds, m.instructions()
    finally:
        m.close()


def measure_boot(monitors, kernel, initrd, runs):
    times = {m.name: [] for m in monitors}
    counts = {m.name: [] for m in monitors}
    for m in monitors:
        boot_once(m, kernel, initrd)  # warms the page cache; not counted
    for _ in range(runs):
        for m in monitors:
            seconds, instructions = boot_once(m, kernel, initrd)
            times[m.name].append(seconds)
            if instructions:
                counts[m.name].append(instructions)
    result = {}
    for m in monitors:
        t = sorted(times[m.name])
        result[m.name] = {"median_s": statistics.median(t), "min_s": t[0], "max_s": t[-1], "runs": len(t)}
        if counts[m.name]:
            n = statistics.median(counts[m.name])
            result[m.name]["instructions"] = int(n)
            result[m.name]["mips"] = n / 1e6 / statistics.median(t)
    return result


def parse_micro(text):
    found = {}
    for line in text.decode(errors="replace").splitlines():
        word = line.split()
        if len(word) == 4 and word[0] == "micro":
            found[word[1]] = (int(word[2]), word[3])
    return found


def measure_micro(monitors, kernel, initrd, micro, scale):
    native = parse_micro(subprocess.run([micro, str(scale)], stdout=subprocess.PIPE, check=True).stdout)
    result = {name: {"native_ms": ns / 1e6} for name, (ns, _) in native.items()}
    for monitor in monitors:
        m = monitor(kernel, initrd, str(scale))
        try:
            m.console.wait_for(LAST_LINE, 600)
            seen = parse_micro(m.console.text)
        finally:
            m.close()
        for name, (ns, checksum) in native.items():
            if name not in seen:
                continue
            if seen[name][1] != checksum:
                result[name][monitor.name + "_wrong"] = "checksum %s, natively %s" % (seen[name][1], checksum)
                continue
            result[name][monitor.name + "_ms"] = seen[name][0] / 1e6
            result[name][monitor.name + "_slowdown"] = seen[name][0] / ns
    return result


def family(pid):
    """pid and every process below it: a monitor may be more than one process, and each counts."""
    parent = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as f:
                    parent[int(entry)] = int(f.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
    found = [pid]
    for p in found:
        found += [c for c, above in parent.items() if above == p]
    return found


def memory_of(pid):
    """(PSS of what is the monitor's own, PSS of guest RAM), bytes. Guest RAM: mappings of a memfd, or of exactly its size or more."""
    own = ram = 0
    is_ram = False
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            word = line.split()
            if "-" in word[0] and not word[0].endswith(":"):
                low, high = (int(x, 16) for x in word[0].split("-"))
                is_ram = high - low >= MEM_MIB << 20 or "memfd:" in line
            elif word[0] == "Pss:":
                if is_ram:
                    ram += int(word[1]) << 10
                else:
                    own += int(word[1]) << 10
    return own, ram


def cpu_ns(pid):
    total = 0
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                total += int(f.read().split()[0])
        except FileNotFoundError:
            pass
    return total


def measure_resting(monitors, kernel, initrd, seconds):
    result = {}
    for monitor in monitors:
        m = monitor(kernel, initrd, "idle")
        try:
            m.console.wait_for(FIRST_LINE, 60)
            time.sleep(SETTLE_S)  # what the kernel puts off until after boot: free pages reported, memory compacted
            pids = family(m.process.pid)
            own, ram = (sum(x) for x in zip(*(memory_of(p) for p in pids)))
            cache = m.code_cache()
            before, start = sum(map(cpu_ns, pids)), time.monotonic()
            time.sleep(seconds)
            used, wall = sum(map(cpu_ns, pids)) - before, time.monotonic() - start
            result[monitor.name] = {
                "own_mib": (own - cache) / 2**20, "block_cache_mib": cache / 2**20, "guest_ram_mib": ram / 2**20,
                "idle_cpu_percent": used / 1e9 / wall * 100, "idle_seconds": wall,
            }  # fmt: skip
        finally:
            m.close()
    return result


# --- Report -----------------------------------------------------------------------------------------------------------------


def cell(value, form="%.1f"):
    return form % value if value is not None else "not measured"


def report(r):
    print("host: %(cpu)s, %(cpus)d cores, Linux %(linux)s" % r["host"])
    print("peer: " + (r["host"]["qemu"] or "none"))
    for note in r["notes"]:
        print("note: " + note)
    names = r["monitors"]
    if "boot" in r:
        print("\nboot to PID 1's first line, one vCPU, %d MiB" % MEM_MIB)
        print("  %-10s %12s %12s %12s %16s %10s" % ("", "median ms", "min", "max", "M instructions", "MIPS"))
        for n in names:
            b = r["boot"][n]
            count = b.get("instructions")
            print("  %-10s %12.1f %12.1f %12.1f %16s %10s" % (n, b["median_s"] * 1e3, b["min_s"] * 1e3, b["max_s"] * 1e3,
                  cell(count / 1e6 if count else None), cell(b.get("mips"), "%.0f")))  # fmt: skip
        if len(names) == 2:
            print("  caisson / qemu: %.2f" % r["boot_ratio"])
    if "micro" in r:
        print("\ninside the guest: milliseconds, and the slowdown against native")
        print("  %-10s %12s" % ("", "native") + "".join(" %12s %9s" % (n, "x") for n in names))
        for name, m in r["micro"].items():
            line = "  %-10s %12.1f" % (name, m["native_ms"])
            for n in names:
                if n + "_wrong" in m:
                    line += "  WRONG: " + m[n + "_wrong"]
                else:
                    line += " %12s %9s" % (cell(m.get(n + "_ms")), cell(m.get(n + "_slowdown")))
            print(line)
    if "resting" in r:
        print("\na guest at rest")
        print("  %-10s %16s %16s %16s %16s" % ("", "own PSS MiB", "block cache MiB", "guest RAM MiB", "idle CPU %"))
        for n in names:
            m = r["resting"][n]
            print("  %-10s %16.1f %16.1f %16.1f %16.3f" % (n, m["own_mib"], m["block_cache_mib"], m["guest_ram_mib"],
                  m["idle_cpu_percent"]))  # fmt: skip


def host_facts():
    model = "unknown"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    qemu = None
    if shutil.which("qemu-system-x86_64"):
        qemu = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]
    return {"cpu": model, "cpus": os.cpu_count(), "linux": os.uname().release, "qemu": qemu}


def main():
    parser = argparse.ArgumentParser(description="Caisson beside QEMU")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--idle", type=float, default=20, help="seconds to watch an idle guest")
    parser.add_argument("--only", default="boot,micro,resting")
    parser.add_argument("--monitors", default="caisson,qemu")
    parser.add_argument("--kernel", default=os.path.join(BUILD, "kernel/vmlinux"))
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true", help="few runs and little work, to see that everything runs")
    args = parser.parse_args()
    if args.quick:
        args.runs, args.scale, args.idle = 3, 1, 3

    reserve_control_fd()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    micro, initrd = build_guest(os.path.join(BUILD, "bench"))
    r = {"host": host_facts(), "notes": [], "monitors": []}
    monitors = []
    for monitor in (Caisson, Qemu):
        if monitor.name not in args.monitors.split(","):
            continue
        try:
            boot_once(monitor, args.kernel, initrd)
            monitors.append(monitor)
            r["monitors"].append(monitor.name)
        except (OSError, TimeoutError, EOFError, control.ControlError) as e:
            r["notes"].append("%s: not measured: %s" % (monitor.name, e))
    wanted = args.only.split(",")
    if monitors and "boot" in wanted:
        r["boot"] = measure_boot(monitors, args.kernel, initrd, args.runs)
        if len(monitors) == 2:
            r["boot_ratio"] = r["boot"]["caisson"]["median_s"] / r["boot"]["qemu"]["median_s"]
    if monitors and "micro" in wanted:
        r["micro"] = measure_micro(monitors, args.kernel, initrd, micro, args.scale)
    if monitors and "resting" in wanted:
        r["resting"] = measure_resting(monitors, args.kernel, initrd, args.idle)
    report(r)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(r, f, indent=1)
            f.write("\n")
    return 0 if monitors else 1


if __name__ == "__main__":
    sys.exit(main())
