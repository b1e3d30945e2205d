#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on an #include that points against the direction of dependencies.

The table below is the one in docs/architecture.md, in code. A part is a folder of src/; `hv/kvm` and `hv/soft` are parts of
their own. Only includes in quotes that name a file of src/ count, whatever #if surrounds them; system headers are free.

    check_includes.py SRC            scan a tree; one line for each forbidden arrow
    check_includes.py --self-test    show on trees made for it that forbidden arrows are caught and allowed ones pass
"""
import os
import re
import sys
import tempfile

MAY_SEE = {
    "base": [],
    "bus": ["base"],
    "mem": ["base"],
    "x86": ["base", "mem"],
    "hv": ["base", "bus", "mem", "x86"],
    "hv/kvm": ["base", "bus", "mem", "x86", "hv"],
    "hv/soft": ["base", "bus", "mem", "x86", "hv"],
    "virtio": ["base", "bus", "mem"],
    "dev": ["base", "bus", "mem"],
    "boot": ["base", "mem", "x86", "dev"],
    "proto": ["base"],
    "vmm": ["base", "bus", "mem", "x86", "hv", "hv/kvm", "hv/soft", "virtio", "dev", "boot", "proto"],
    "fs": ["base"],
    "guest": ["base", "proto"],
    "image": ["base", "proto"],
    "cgroup": ["base"],
    "container": ["base", "cgroup", "image"],
    "net": ["base", "proto"],
    "sandbox": ["base", "proto", "image", "cgroup", "container", "net"],
    "cli": ["base", "proto", "sandbox", "image", "net"],
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def part_of(path):
    """The part that a file of src/ (a path relative to it) belongs to; None for one that is in no part."""
    folders = os.path.dirname(path).split("/")
    for n in (2, 1):
        if "/".join(folders[:n]) in MAY_SEE and len(folders) >= n:
            return "/".join(folders[:n])
    return None


def arrows(src):
    """Yields (file, line, included file) for every include of a file of src/, and of a quoted file that is not there (None)."""
    for folder, dirs, files in os.walk(src):
        dirs.sort()
        for name in sorted(files):
            if not name.endswith((".c", ".h", ".S", ".inc")):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8", errors="replace") as f:
                # Comments go, line numbers stay.
                text = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), f.read())
            for m in INCLUDE.finditer(text):
                line = text.count("\n", 0, m.start(1)) + 1
                for base in (folder, src):
                    target = os.path.normpath(os.path.join(base, m.group(1)))
                    if os.path.exists(target):
                        yield os.path.relpath(path, src), line, os.path.relpath(target, src)
                        break


def forbidden(src):
    found = []
    for path, line, target in arrows(src):
        here, there = part_of(path), part_of(target)
        if target.startswith(".."):
            found.append(f"src/{path}:{line}: includes {target}, which is outside src/")
        elif here is None:
            found.append(f"src/{path}:{line}: this folder is not in the layout (docs/architecture.md, tests/layout)")
        elif there is None:
            found.append(f"src/{path}:{line}: includes {target}, which is in no part of the layout")
        elif here != there and there not in MAY_SEE[here]:
            found.append(f"src/{path}:{line}: {here} may not see {there} ({target})")
    return found


def self_test():
    """Each case: files of a tree, and whether it must be refused."""
    cases = [
        ("an arrow to the base", {"mem/a.c": '#include "base/e.h"\n', "base/e.h": ""}, 0),
        ("an include beside the file", {"mem/a.c": '#include "b.h"\n', "mem/b.h": ""}, 0),
        ("a backend sees the contract", {"hv/soft/a.c": '#include "hv/hv.h"\n', "hv/hv.h": ""}, 0),
        ("the contract sees no backend", {"hv/a.c": '#include "hv/soft/s.h"\n', "hv/soft/s.h": ""}, 1),
        ("one backend sees no other", {"hv/kvm/a.c": '#include "hv/soft/s.h"\n', "hv/soft/s.h": ""}, 1),
        ("a device sees no processor", {"virtio/a.c": '#include "x86/state.h"\n', "x86/state.h": ""}, 1),
        ("a device sees no vCPU", {"dev/a.c": '#include "hv/hv.h"\n', "hv/hv.h": ""}, 1),
        ("the sandbox sees no monitor", {"sandbox/a.c": '#include "vmm/vmm.h"\n', "vmm/vmm.h": ""}, 1),
        ("through a relative path", {"guest/a.c": '#include "../vmm/vmm.h"\n', "vmm/vmm.h": ""}, 1),
        ("inside #if 0 too", {"base/a.c": '#if 0\n #  include "mem/m.h"\n#endif\n', "mem/m.h": ""}, 1),
        ("a comment is no include", {"base/a.c": '/*\n#include "mem/m.h"\n*/\n', "mem/m.h": ""}, 0),
        ("a folder nobody declared", {"misc/a.c": '#include "base/e.h"\n', "base/e.h": ""}, 1),
        ("two arrows are two lines", {"base/a.c": '#include "mem/m.h"\n#include "vmm/v.h"\n', "mem/m.h": "", "vmm/v.h": ""}, 2),
    ]
    failed = 0
    for name, files, expected in cases:
        with tempfile.TemporaryDirectory() as src:
            for path, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(src, path)), exist_ok=True)
                with open(os.path.join(src, path), "w") as f:
                    f.write(text)
            found = forbidden(src)
            if len(found) != expected:
                failed += 1
                print(f"not ok: {name}: expected {expected} findings, got {found}")
    # The table itself has to be acyclic, or "direction" means nothing.
    for part in MAY_SEE:
        seen, todo = set(), list(MAY_SEE[part])
        while todo:
            p = todo.pop()
            if p not in seen:
                seen.add(p)
                todo += MAY_SEE[p]
        if part in seen:
            failed += 1
            print(f"not ok: {part} can reach itself")
    print(f"{len(cases)} trees, {failed} failures")
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    found = forbidden(sys.argv[1])
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
