#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_layers.py DIR: layers (tar) that need everything a layer can ask for: DIR/1.tar, 2.tar, ... lowest first."""
import io, os, sys, tarfile

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
T = 1600000000


class Layer:
    def __init__(self, n, fmt=tarfile.PAX_FORMAT):
        self.t = tarfile.open(f"{out}/{n}.tar", "w", format=fmt)

    def add(self, name, kind, data=b"", link="", mode=0o644, uid=0, gid=0, mtime=T, pax=None, **kw):
        i = tarfile.TarInfo(name)
        i.type, i.linkname, i.mode, i.size, i.uid, i.gid, i.mtime = kind, link, mode, len(data), uid, gid, mtime
        i.pax_headers = pax or {}
        for k, v in kw.items():
            setattr(i, k, v)
        self.t.addfile(i, io.BytesIO(data) if data else None)

    def f(self, name, data=b"x", **kw): self.add(name, tarfile.REGTYPE, data, **kw)
    def d(self, name, **kw): self.add(name, tarfile.DIRTYPE, mode=kw.pop("mode", 0o755), **kw)
    def l(self, name, to, **kw): self.add(name, tarfile.SYMTYPE, link=to, mode=0o777, **kw)
    def h(self, name, to, **kw): self.add(name, tarfile.LNKTYPE, link=to, **kw)
    def c(self, name, major, minor, kind=tarfile.CHRTYPE, **kw): self.add(name, kind, devmajor=major, devminor=minor, **kw)
    def w(self, name): self.f(name, b"")
    def close(self): self.t.close()


a = Layer(1)
a.d("./", mtime=T + 9)
for d in ("bin", "etc", "etc/sub", "gone", "gone/deep", "opaque", "opaque/below", "kept", "dev", "replaced", "swap", "emptied"):
    a.d(d, mtime=T + 1)
a.f("bin/su", b"#!" * 5000, mode=0o4755)
a.f("etc/passwd", b"root:x:0:0::/:/bin/sh\n", mode=0o600, uid=7, gid=8)
a.f("etc/owned", b"o", uid=70000, gid=2000000000)
a.f("etc/time", b"t", mtime=T + 0.123456789, pax={"mtime": "1600000000.123456789"})
a.f("etc/old", b"1969", mtime=-1, pax={"mtime": "-1"})
a.f("etc/xattr", b"x", pax={"SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": "deux", "SCHILY.xattr.trusted.three": "3"})
a.f("bin/cap", b"c", mode=0o755, pax={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"})
a.d("etc/xdir", pax={"SCHILY.xattr.user.d": "dir"})
a.c("dev/null", 1, 3, mode=0o666)
a.c("dev/big", 259, 70000)
a.c("dev/loop", 7, 1, kind=tarfile.BLKTYPE, gid=6, mode=0o660)
a.add("dev/fifo", tarfile.FIFOTYPE, mode=0o600)
a.f("gone/file"); a.f("gone/deep/file")
a.f("opaque/lower"); a.f("opaque/below/lower")
a.f("kept/one", b"1" * 70001); a.f("kept/two", b"2")
a.h("kept/one-too", "kept/one")
a.f("replaced/file", b"old"); a.h("replaced/link", "replaced/file")
a.d("swap/dir"); a.f("swap/dir/in"); a.f("swap/file"); a.l("swap/link", "file")
a.f("emptied/a"); a.f("emptied/b")
a.l("lib", "usr/lib"); a.d("usr"); a.d("usr/lib"); a.f("usr/lib/so", b"so" * 3000)
a.l("abs", "/etc/passwd"); a.l("dangling", "no/where"); a.l("long-link", "t" * 300)
long = "long/" + "/".join("n" * 200 for _ in range(4))
a.d("long"); a.d("long/" + "n" * 200); a.d("long/" + "/".join(["n" * 200] * 2)); a.d("long/" + "/".join(["n" * 200] * 3)); a.d(long)
a.f(long + "/" + "f" * 255, b"deep"); a.f("n" * 255, b"wide"); a.f("um\u00e4ut \u2603 name\nline", b"u")
a.f("exact", b"e" * 4096); a.f("almost", b"e" * 4095); a.f("more", b"e" * 4097); a.f("none", b"")
a.f(".dotfile", b"d"); a.f("!bang", b"b"); a.f("..twodots", b"d")
for k in range(400):
    a.f(f"bin/tool-with-a-longer-name-{k}", b"%d" % k)
a.close()

b = Layer(2, tarfile.GNU_FORMAT)
b.w(".wh.gone")
b.d("opaque", mtime=T + 2); b.w("opaque/.wh..wh..opq"); b.f("opaque/upper", b"upper")
b.w("kept/.wh.two"); b.h("kept/across", "kept/one"); b.h("bin/across", "usr/lib/so")
b.f("replaced/file", b"new")
b.w("swap/.wh.dir"); b.w("swap/.wh.file"); b.w("swap/.wh.link")
b.d("etc", mode=0o750, mtime=T + 3)
b.w("emptied/.wh.a"); b.w("emptied/.wh.b"); b.w("no/such/.wh.thing")
b.close()

c = Layer(3)
c.f("swap/dir", b"a file now"); c.d("swap/file"); c.f("swap/file/in", b"i"); c.d("swap/link", mode=0o700)
c.d("gone", mode=0o711); c.f("gone/again", b"back")
c.w("kept/.wh.one"); c.f("opaque/third", b"3")
c.f("implied/parent/file", b"p")
c.close()

# Holes, as GNU tar packs them.
os.makedirs(out + "/sparse/p")
for name, size, parts in (("hole", 64 << 20, {(64 << 20) - 3: b"end"}), ("all", 20 << 20, {}), ("mid", 30 << 20, {0: b"start", 10 << 20: os.urandom(100000)})):
    with open(f"{out}/sparse/p/{name}", "wb") as f:
        f.truncate(size)
        for at, data in parts.items():
            f.seek(at)
            f.write(data)
os.system(f"tar -C {out}/sparse --sparse --format=pax -cf {out}/4.tar p && tar -C {out}/sparse --sparse --format=gnu -cf {out}/gnu-sparse.tar p")
