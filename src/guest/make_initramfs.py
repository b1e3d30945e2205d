#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the guest's initramfs: a cpio archive (newc, see the kernel's buffer-format.rst) that is the same for the same input.

usage: make_initramfs.py CAISSON-INIT OUTPUT
"""
import stat
import sys


def pad4(b):
    return b + b"\0" * (-len(b) % 4)


def entry(ino, name, mode, data=b"", nlink=1, rdev=(0, 0)):
    fields = (ino, mode, 0, 0, nlink, 0, len(data), 0, 0, rdev[0], rdev[1], len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % f for f in fields)
    return pad4(head + name.encode() + b"\0") + pad4(data)


def main():
    init, output = sys.argv[1:3]
    with open(init, "rb") as f:
        program = f.read()
    out = b""
    ino = 1
    # proc, dev: mounted on; lower, rw, newroot: where the root file system is put together.
    for name in ("dev", "proc", "lower", "rw", "newroot"):
        out += entry(ino, name, stat.S_IFDIR | 0o755, nlink=2)
        ino += 1
    # The kernel opens it as the first process's stdin, stdout and stderr.
    out += entry(ino, "dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    out += entry(ino + 1, "init", stat.S_IFREG | 0o755, program)
    out += entry(0, "TRAILER!!!", 0)
    out += b"\0" * (-len(out) % 512)
    with open(output, "wb") as f:
        f.write(out)


if __name__ == "__main__":
    main()
