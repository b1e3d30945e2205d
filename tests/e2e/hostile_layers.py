#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""hostile_layers.py KIND [N]: an archive that means no good, on standard output."""
import gzip, subprocess, sys, tarfile

out = sys.stdout.buffer
kind = sys.argv[1]
n = int(sys.argv[2]) if sys.argv[2:] and sys.argv[2].isdigit() else 0


def header(name, size=0, typ=tarfile.REGTYPE, link="", fmt=tarfile.PAX_FORMAT, pax=None):
    i = tarfile.TarInfo(name)
    i.size, i.type, i.linkname, i.mode, i.pax_headers = size, typ, link, 0o644, pax or {}
    return i.tobuf(fmt)


def body(data):
    return data + bytes(-len(data) % 512)


def many(n, data=b""):
    base = bytearray(header("x", len(data), fmt=tarfile.USTAR_FORMAT))
    base[0:100] = bytes(100)
    base[148:156] = b" " * 8
    total, head, tail = sum(base), bytes(base[100:148]), bytes(base[156:]) + body(data)
    lines = []
    for k in range(n):
        name = b"d%d/f%d" % (k // 1000, k)
        lines += (name.ljust(100, b"\0"), head, b"%06o\0 " % (total + sum(name)), tail)
        if len(lines) > 40000:
            out.write(b"".join(lines))
            lines = []
    out.write(b"".join(lines))


def bomb(compress):
    out.write(compress(header("zeros", 3 << 30)))
    out.write(compress(bytes(1 << 24)) * 70)  # members, or frames, one after the other


if kind == "many":
    many(n, b"y")
elif kind == "bomb":
    bomb(lambda b: gzip.compress(b, mtime=0))
elif kind == "zstd-bomb":
    bomb(lambda b: subprocess.run(["zstd", "-qc"], input=b, stdout=subprocess.PIPE, check=True).stdout)
elif kind == "again":
    for _ in range(n // 1000):
        out.write(header("f", fmt=tarfile.USTAR_FORMAT) * 1000)
elif kind == "one":  # NAME TYPE LINK
    name, typ, link = sys.argv[2:5]
    out.write(header(name, typ=typ.encode(), link=link))
elif kind == "links":  # each entry costs as much walking as a name can
    step = "d/../" * 800
    out.write(header("d", typ=tarfile.DIRTYPE))
    for k in range(39):
        out.write(header(f"l{k}", typ=tarfile.SYMTYPE, link=step + f"l{k + 1}"))
    out.write(header("l39", typ=tarfile.SYMTYPE, link="d"))
    for k in range(n):
        out.write(header(f"l0/{k}", fmt=tarfile.USTAR_FORMAT))
elif kind == "attributes":
    for k in range(n):
        out.write(header(f"f{k}", pax={f"SCHILY.xattr.user.{j}": "" for j in range(4000)}))
elif kind == "big-attribute":
    out.write(header("f", pax={"SCHILY.xattr.user.x": "v" * 70000}))
elif kind == "claims":  # a size that nothing follows
    out.write(header("f", 1 << 62, fmt=tarfile.GNU_FORMAT))
elif kind == "sparse-claims":
    out.write(header("f", 512, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f", "GNU.sparse.realsize": str(1 << 62)}))
    out.write(body(b"1\n4611686018427387000\n1\nx"))
elif kind == "deep":
    out.write(header("/".join("d" * 1 for _ in range(2000)) + "/f"))
elif kind == "overlay":
    out.write(header("d", typ=tarfile.DIRTYPE, pax={"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": "/etc",
                                                  "SCHILY.xattr.user.kept": "1"}))
    out.write(header("c", typ=tarfile.CHRTYPE))
if "bomb" not in kind:
    out.write(bytes(1024))
