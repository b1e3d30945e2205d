#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a whole Linux guest.

    linux-snapshot.py SNAP_RUN CAISSON_VMM VMLINUX INITRAMFS CMDLINE ROOT.erofs CPUS SNAPSHOTS

A program counts and hashes what it has counted, and is snapshotted at random moments, in chains of incremental snapshots. Each of them, restored, goes
on from where it stood: no number is left out or repeated, no hash is wrong. Then a booted machine is restored again and again, with its root already
mounted or with a disk put into an empty slot, and each copy runs a program; no two of them draw the same random numbers.
"""
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time

SNAP_RUN, VMM, KERNEL, INITRD, CMDLINE, ROOT, CPUS, COUNT = sys.argv[1:9]
PROGRAM = ('i=0; h=start; exec >/dev/console; while :; do i=$((i+1)); h=$(echo "$h $i" | md5sum | cut -c1-32); echo "$i $h"; done')


def snap_run(*args):
    r = subprocess.run([SNAP_RUN, *args], env=dict(os.environ, CAISSON_VMM=VMM), capture_output=True, text=True, timeout=240)
    if r.returncode:
        sys.exit(f"snap-run {' '.join(args)}: {r.stderr}{r.stdout}")
    return r.stdout


def expected():
    h, i = "start", 0
    while True:
        i += 1
        h = hashlib.md5(f"{h} {i}\n".encode()).hexdigest()
        yield f"{i} {h}"


def lines(path):
    """The whole lines of a console; the first one may be the rest of one that another monitor began."""
    with open(path, "rb") as f:
        text = f.read().decode(errors="replace").replace("\r", "")
    return text.split("\n")[:-1]


def check_chain(directory, n):
    all_lines = []
    source = expected()
    whole = re.compile(r"\d+ [0-9a-f]{32}$")
    for k in [None, *range(n)]:
        path = f"{directory}/console" if k is None else f"{directory}/{k}/console"
        got = lines(path)
        first = 0 if k is None else 1 if got and not whole.match(got[0]) else 0
        numbers = [int(line.split()[0]) for line in got[first:]]
        while len(all_lines) < max(numbers, default=0):
            all_lines.append(next(source))
        if not numbers:
            sys.exit(f"{path}: the copy does nothing")
        for at, line in enumerate(got[first:]):
            if line != all_lines[numbers[0] - 1 + at]:
                # Where the first line was cut, what is left of it may look whole.
                if at == 0 and k is not None and all_lines[numbers[1] - 2].endswith(line):
                    numbers[0] = numbers[1] - 1
                    continue
                sys.exit(f"{path}: line {at + first + 1} is \"{line}\" and should be \"{all_lines[numbers[0] - 1 + at]}\"")
    print(f"{n} snapshots, {len(all_lines)} steps, none lost or repeated")


def main():
    machine = ["--kernel", KERNEL, "--initrd", INITRD, "--cmdline", CMDLINE, "--cpus", CPUS]
    with tempfile.TemporaryDirectory() as d:
        os.mkdir(f"{d}/chain")
        print(snap_run("chain", f"{d}/chain", *machine, "--disk", f"{ROOT}:ro", "--setup", "/dev/vda", "-n", COUNT, "--", "/bin/sh", "-c", PROGRAM), end="")
        check_chain(f"{d}/chain", int(COUNT))
        for name in "base", "image", "image2":
            os.mkdir(f"{d}/{name}")
        snap_run("build", f"{d}/base", *machine, "--empty")
        for i in range(3):
            snap_run("run", f"{d}/base", "--disk", f"{ROOT}:ro", "--setup", "/dev/vda", "--expect", "hello\n", "--", "/bin/echo", "hello")
        # The disk comes while the guest runs.
        snap_run("run", f"{d}/base", "--empty", "--attach", ROOT, "--setup", "/dev/vda", "--expect", "hello\n", "--", "/bin/sh", "-c", "echo hello")
        print("restored with disks put into an empty slot")
        snap_run("build", f"{d}/image", "--from", f"{d}/base", "--disk", f"{ROOT}:ro", "--setup", "/dev/vda", "--warm", "true")
        snap_run("build", f"{d}/image2", "--from", f"{d}/image", "--disk", f"{ROOT}:ro", "--warm", "true")
        drawn = set()
        for i in range(20):
            drawn.add(snap_run("run", f"{d}/image2", "--disk", f"{ROOT}:ro", "--", "/bin/sh", "-c", "head -c 16 /dev/urandom | md5sum"))
        if len(drawn) != 20:
            sys.exit(f"20 copies drew only {len(drawn)} different random numbers")
        print("20 copies drew 20 different random numbers")
        # A second build's code, or another snapshot's, is refused and can be left out.
        os.replace(f"{d}/base/code", f"{d}/image2/code")
        r = subprocess.run([SNAP_RUN, "run", f"{d}/image2", "--disk", f"{ROOT}:ro", "--", "/bin/true"], env=dict(os.environ, CAISSON_VMM=VMM),
                           capture_output=True, text=True)
        if r.returncode == 0 or "another snapshot" not in r.stderr:
            sys.exit(f"decoded code of another snapshot was taken: {r.stderr}")
        snap_run("run", f"{d}/image2", "--no-code", "--disk", f"{ROOT}:ro", "--", "/bin/true")
        # One flipped bit, in memory that the guest uses: told when it is used, or before.
        snap_run("run", f"{d}/image2", "--verify", "--no-code", "--disk", f"{ROOT}:ro", "--", "/bin/true")
        with open(f"{d}/image2/memory", "r+b") as f:
            f.seek(0x1000000 + 0x100)
            byte = f.read(1)
            f.seek(0x1000000 + 0x100)
            f.write(bytes([byte[0] ^ 4]))
            f.flush()
            r = subprocess.run([SNAP_RUN, "run", f"{d}/image2", "--verify", "--no-code", "--disk", f"{ROOT}:ro", "--", "/bin/true"],
                               env=dict(os.environ, CAISSON_VMM=VMM), capture_output=True, text=True)
            f.seek(0x1000000 + 0x100)
            f.write(byte)
        if r.returncode == 0 or "checksum of its memory at offset 0x1000000 is wrong" not in r.stderr:
            sys.exit(f"a flipped bit was not told: {r.stderr}")
        # A memory file cut short while the guest runs ends it with a sentence; one that is short from the beginning is refused.
        p = subprocess.Popen([SNAP_RUN, "run", f"{d}/image2", "--no-code", "--disk", f"{ROOT}:ro", "--", "/bin/sh", "-c",
                              "sleep 1; find / -xdev | md5sum; cat /bin/busybox | md5sum; sh -c true"],
                             env=dict(os.environ, CAISSON_VMM=VMM), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.6)
        os.truncate(f"{d}/image2/memory", 4 << 20)
        said = p.communicate(timeout=60)[1]
        if p.returncode == 0 or "the host could not provide a page of the guest's memory" not in said:
            sys.exit(f"the end of a memory file was not told: {said}")
        r = subprocess.run([SNAP_RUN, "run", f"{d}/image2", "--no-code", "--disk", f"{ROOT}:ro", "--", "/bin/true"], env=dict(os.environ, CAISSON_VMM=VMM),
                           capture_output=True, text=True)
        if r.returncode == 0 or "memory file 1 of the snapshot is cut short" not in r.stderr:
            sys.exit(f"a memory file that is cut short was taken: {r.stderr}")
        print("files that do not fit are refused")


main()
