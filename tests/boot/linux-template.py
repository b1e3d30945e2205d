#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Templates as the agent prepares them, and copies of them.

    linux-template.py SNAP_RUN CAISSON_VMM VMLINUX INITRAMFS CMDLINE ROOT.erofs

A machine is booted with empty disk slots, gets its image, is prepared in each of the ways there are, and saved. Its copies find the same root,
files of /etc and network whatever was prepared; what one of them writes no other sees; no two draw the same random numbers, although the
generation id's interrupt is left out; and starting a program takes them few instructions.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

SNAP_RUN, VMM, KERNEL, INITRD, CMDLINE, ROOT = sys.argv[1:7]
MOST_INSTRUCTIONS = {False: 800000, True: 1000000}  # without and with a network
LOOK = ("sort /proc/mounts; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname; ip addr show lo; ip addr show eth0; ip route; ip -6 route;"
        "ps | grep -v '\\]$' | grep -vE 'sh -c|init|COMMAND|sort|grep|ps$'; ls / /dev/shm /dev/mqueue; (echo x >/left) && ls -l /left | cut -c1-10")


def snap_run(*args):
    r = subprocess.run([SNAP_RUN, *args], env=dict(os.environ, CAISSON_VMM=VMM), capture_output=True, text=True, timeout=120)
    if r.returncode:
        sys.exit(f"snap-run {' '.join(args)}: {r.stderr}{r.stdout}")
    return r.stdout


def main():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for what, there in (("mkfs.ext4", shutil.which("mkfs.ext4")), (f"guest kernel at {KERNEL}", os.path.exists(KERNEL))):
        if not there:
            print(f"skipped: no {what}")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as d:
        disk = f"{d}/disk"
        with open(disk, "wb") as f:
            f.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", disk], check=True)
        for net in ([], ["--net"]):
            os.makedirs(f"{d}/base", exist_ok=True)
            snap_run("build", f"{d}/base", "--kernel", KERNEL, "--initrd", INITRD, "--cmdline", CMDLINE, "--empty", "--empty-rw", *net)
            expected = {}
            for name, words, attach, run in (
                    ("the lower file system", [], [], ["--empty-rw"]),
                    ("the lower file system, a disk later", [], [], ["--empty-rw", "--upper", disk]),
                    ("the root, writable in memory", ["--overlay"], [], ["--empty-rw"]),
                    ("the root, writable on a disk", ["--upper", "/dev/vdb", "ext4"], ["--upper", disk], ["--empty-rw", "--upper-copy", f"{d}/image/upper"])):
                shutil.rmtree(f"{d}/image", ignore_errors=True)
                os.mkdir(f"{d}/image")
                snap_run("build", f"{d}/image", "--from", f"{d}/base", "--empty", "--empty-rw", *net, "--attach", ROOT, *attach,
                         "--", "prepare", "/dev/vda", "erofs", *words, "--", "/bin/sh", "-c", "cat /bin/busybox >/dev/null; echo x >/left; sleep 100 &")
                copy = ["run", f"{d}/image", "--disk", f"{ROOT}:ro", *run, *net, "--setup", "/dev/vda", "--quiet"]
                for _ in range(2):
                    seen = snap_run(*copy, "--", "/bin/sh", "-c", LOOK)
                    same = expected.setdefault("look", seen)
                    if seen != same or "copy\n127.0.0.1\tlocalhost\n10.88.0.2\tcopy\nnameserver 10.88.0.1\ncopy\n" not in seen:
                        sys.exit(f"{name}: the copy sees\n{seen}\nand not\n{same}")
                    if net and not all(x in seen for x in ("10.88.0.2/24", "fd00:88::2/64", "default via 10.88.0.1", "default via fd00:88::1")):
                        sys.exit(f"{name}: the network is\n{seen}")
                drawn = {snap_run(*copy, "--", "/bin/sh", "-c", "head -c 16 /dev/urandom | md5sum") for _ in range(5)}
                if len(drawn) != 5:
                    sys.exit(f"{name}: 5 copies drew only {len(drawn)} different random numbers")
                took = min(int(re.search(r"instructions (\d+)", snap_run(*copy, "--stats", "--", "/bin/true")).group(1)) for _ in range(3))
                print(f"ok: {name}{', with a network' if net else ''}: {took} instructions for /bin/true")
                if words and took > MOST_INSTRUCTIONS[bool(net)]:
                    sys.exit(f"{name}: that is more than {MOST_INSTRUCTIONS[bool(net)]}")


if __name__ == "__main__":
    main()
