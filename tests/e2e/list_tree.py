#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""list_tree.py DIR: one line an entry, with everything that an image must keep; sorted."""
import hashlib, os, stat, sys

top = os.fsencode(sys.argv[1])
first = {}
lines = []


def one(path):
    s = os.lstat(path)
    rel = os.path.relpath(path, top)
    what = [oct(s.st_mode), f"{s.st_uid}:{s.st_gid}", f"links={s.st_nlink}", f"mtime={s.st_mtime_ns}"]
    if stat.S_ISREG(s.st_mode):
        h = hashlib.sha256()
        with open(path, "rb") as f:
            while b := f.read(1 << 20):
                h.update(b)
        what += [f"size={s.st_size}", h.hexdigest()]
    if stat.S_ISLNK(s.st_mode):
        what.append("-> " + repr(os.readlink(path)))
    if stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
        what.append(f"device={os.major(s.st_rdev)}:{os.minor(s.st_rdev)}")
    if not stat.S_ISDIR(s.st_mode) and s.st_nlink > 1:
        what.append("same as " + repr(first.setdefault((s.st_dev, s.st_ino), rel)))
    for n in sorted(os.listxattr(path, follow_symlinks=False)):
        what.append(f"{n}={os.getxattr(path, n, follow_symlinks=False).hex()}")
    lines.append(f"{rel!r} " + " ".join(what))


def walk(d):
    one(d)
    for n in sorted(os.listdir(d)):
        p = os.path.join(d, n)
        if stat.S_ISDIR(os.lstat(p).st_mode):
            walk(p)
        else:
            one(p)


walk(top)
print("\n".join(lines))
