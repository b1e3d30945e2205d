#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: making an image, beside umoci unpack; an EROFS file of a directory, beside mkfs.erofs.

    images.py [--runs N] [--from DIR] [--megabytes N] [--json FILE]

Both import the same OCI layout (one gzip layer) of part of this host's own files (DIR, default /usr, up to N megabytes, default 200), and
take turns; medians of wall-clock and CPU time, and the largest resident set of any process. What each leaves behind is removed between runs, outside
of what is timed. umoci's result is a directory with all files; Caisson's is one synced EROFS file, and nothing else.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = os.path.join(ROOT, os.environ.get("BUILD", "build"), "src/image/caisson-image")


def measured(argv, env=None):
    t = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    text = p.stderr.read()
    _, status, used = os.wait4(p.pid, 0)
    if status:
        raise RuntimeError("%s: %s" % (argv[0], text.decode(errors="replace").strip()[-300:]))
    return {"s": time.monotonic() - t, "cpu_s": used.ru_utime + used.ru_stime, "rss_mib": used.ru_maxrss / 1024}


def medians(runs):
    return {k: round(statistics.median(r[k] for r in runs), 3) for k in runs[0]}


def make_source(work, top, megabytes):
    """A tar of files below top, and the same as a directory; how much that is."""
    tar, tree, size, n = os.path.join(work, "layer.tar"), os.path.join(work, "tree"), 0, 0
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as t:
        for d, dirs, files in os.walk(top):
            dirs.sort()
            for name in [None] + sorted(files):
                path = os.path.join(d, name) if name else d
                if size < megabytes << 20 and (os.path.islink(path) or os.path.isfile(path) or os.path.isdir(path)) and os.access(path, os.R_OK):
                    t.add(path, recursive=False)
                    size += 0 if os.path.islink(path) or not name else os.path.getsize(path)
                    n += 1
    os.mkdir(tree)
    subprocess.run(["tar", "-C", tree, "-xf", tar], check=True)
    return tar, tree, size, n


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--from", dest="top", default="/usr")
    a.add_argument("--megabytes", type=int, default=200)
    a.add_argument("--json")
    a = a.parse_args()
    if not shutil.which("umoci"):
        print("images: not measured: umoci is not installed")
        return 0
    work = tempfile.mkdtemp(prefix="caisson-bench-images-")
    result = {}
    try:
        tar, tree, size, n = make_source(work, a.top, a.megabytes)
        oci, out, erofs = (os.path.join(work, x) for x in ("oci", "out", "file"))
        for argv in (["init", "--layout", oci], ["new", "--image", oci + ":v"], ["raw", "add-layer", "--image", oci + ":v", tar]):
            subprocess.run(["umoci"] + argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        umoci = ["umoci", "unpack"] + ([] if os.geteuid() == 0 else ["--rootless"]) + ["--image", oci + ":v", out]
        pairs = {
            "image import": {"caisson": [IMAGE, "import", "--store", out, oci, "bench"], "umoci unpack": umoci},
            "directory to EROFS": {"caisson": [IMAGE, "rootfs", tree, erofs], "mkfs.erofs": ["mkfs.erofs", "--quiet", erofs, tree]},
        }
        for title, programs in pairs.items():
            if title == "directory to EROFS" and not shutil.which("mkfs.erofs"):
                continue
            runs = {name: [] for name in programs}
            for _ in range(a.runs):
                for name, argv in programs.items():
                    runs[name].append(measured(argv))
                    shutil.rmtree(out, ignore_errors=True)
                    if os.path.exists(erofs):
                        os.unlink(erofs)
                    os.sync()
            result[title] = {name: medians(r) for name, r in runs.items()}
        print("Images: %d entries, %d MiB of files, %d MiB as a gzip layer; medians of %d" % (n, size >> 20, max(
            os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(oci) for f in fs) >> 20, a.runs))
        print("  %-20s %-14s %9s %9s %10s" % ("", "", "seconds", "CPU s", "peak MiB"))
        for title, programs in result.items():
            for name, r in programs.items():
                # A child's figure starts at what this process had when it was made.
                floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                rss = "%10.1f" % r["rss_mib"] if r["rss_mib"] > floor * 1.05 else "%10s" % ("< %.0f" % floor)
                print("  %-20s %-14s %9.2f %9.2f %s" % (title, name, r["s"], r["cpu_s"], rss))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
