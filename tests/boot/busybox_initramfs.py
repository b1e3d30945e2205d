#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An initramfs of busybox and a shell script that runs as PID 1, for tests that need a guest's user space and no agent.

usage: busybox_initramfs.py BUSYBOX SCRIPT OUTPUT [NAME=FILE]...
"""
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../src/guest"))
from make_initramfs import entry  # noqa: E402


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def main():
    busybox, script, output = sys.argv[1:4]
    out, ino = b"", 1
    for name in ("dev", "proc", "sys", "tmp", "mnt", "bin"):
        out += entry(ino, name, stat.S_IFDIR | 0o755, nlink=2)
        ino += 1
    files = [("bin/busybox", busybox), ("init", script)] + [a.split("=", 1) for a in sys.argv[4:]]
    for name, path in files:
        out += entry(ino, name, stat.S_IFREG | 0o755, contents(path))
        ino += 1
    out += entry(ino, "bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    out += entry(ino + 1, "dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    out += entry(0, "TRAILER!!!", 0)
    out += b"\0" * (-len(out) % 512)
    with open(output, "wb") as f:
        f.write(out)


main()
