#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: starting a container, and a program in a running one, beside bubblewrap, crun and runc.

    containers.py [--runs N] [--json FILE]

All run the same static /bin/true from the same root directory (busybox), each with namespaces of its own, its own empty network and, but for bubblewrap, a
control group; they take turns. Medians and 90th percentiles of wall-clock time, medians of CPU time (of the program and all that it waited for), the ratio of
the wall-clock medians to crun's. "caisson (engine)" is the container engine alone (tests/tools/container-run), "caisson run" the command that users have;
"with a network" gives it what users get without --network none, which the others do not have. A microVM is there for comparison. The memory is what the kernel charges to the control group of
a container in which `sleep` runs. Needs root.
"""
import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
CAISSON = os.path.join(BUILD, "src/cli/caisson")
ENGINE = os.path.join(BUILD, "tests/tools/container-run")
AGENT = os.path.join(BUILD, "src/guest/caisson-init")
CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 0x44000


def hide_hybrid_cgroups():
    """crun refuses a host that mixes both versions of control groups: in a mount namespace of ours, version 2 is not there."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounts = [line.split() for line in open("/proc/self/mountinfo")]
    if not any(" cgroup " in " %s " % " ".join(m) and "-" in m for m in mounts):
        return
    libc.unshare(CLONE_NEWNS)
    libc.mount(None, b"/", None, MS_REC_PRIVATE, None)
    for m in mounts:
        if m[m.index("-") + 1] == "cgroup2" and any(n[n.index("-") + 1] == "cgroup" for n in mounts):
            subprocess.run(["umount", m[4]], check=False)


def measured(argv, env, cwd):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    t = time.monotonic()
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, cwd=cwd)
    wall = time.monotonic() - t
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode:
        raise RuntimeError("%s: %s" % (argv[0], p.stderr.decode(errors="replace").strip()[-300:]))
    return {"ms": wall * 1e3, "cpu_ms": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3}


def make_root(work):
    root = os.path.join(work, "bundle/rootfs")
    for d in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        os.makedirs(os.path.join(root, d))
    shutil.copy("/bin/busybox", os.path.join(root, "bin/busybox"))
    for name in ("true", "sleep", "sh"):
        os.symlink("busybox", os.path.join(root, "bin", name))
    for d, _, _ in os.walk(work):
        os.chmod(d, 0o755)
    return root


def make_bundle(work, runtime, args):
    """The runtime's own default bundle, without a terminal."""
    path = os.path.join(work, "bundle/config.json")
    if os.path.exists(path):
        os.unlink(path)
    subprocess.run([runtime, "spec"], cwd=os.path.join(work, "bundle"), check=True)
    config = json.load(open(path))
    config["process"]["terminal"] = False
    config["process"]["args"] = args
    json.dump(config, open(path, "w"))


def take_turns(programs, runs, env, prepare=None):
    result = {name: [] for name in programs}
    for i in range(runs + 1):
        for name in list(programs):
            try:
                argv, cwd = programs[name](i)
                r = measured(argv, env, cwd)
            except RuntimeError as e:
                print("  %s: not measured: %s" % (name, e))
                del programs[name], result[name]
                continue
            if i:  # the first is to warm up
                result[name].append(r)
    table = {}
    for name, rs in result.items():
        if rs:
            table[name] = {k: round(statistics.median(r[k] for r in rs), 2) for k in rs[0]}
            table[name]["p90_ms"] = round(sorted(r["ms"] for r in rs)[min(len(rs) - 1, len(rs) * 9 // 10)], 2)
    for name, r in table.items():
        for peer in (n for n in ("crun", "crun exec") if n in table):
            r["to_crun"] = round(r["ms"] / table[peer]["ms"], 2)
    return table


def charge(needle):
    """What the kernel charges to the memory group whose path contains this."""
    for d, _, files in os.walk("/sys/fs/cgroup"):
        if needle in d:
            for f in ("memory.current", "memory.usage_in_bytes"):
                if f in files:
                    return int(open(os.path.join(d, f)).read())
    return None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--runs", type=int, default=30)
    a.add_argument("--json")
    a = a.parse_args()
    if os.geteuid() != 0:
        print("containers: not measured: needs root")
        return 0
    hide_hybrid_cgroups()
    work = tempfile.mkdtemp(prefix="caisson-bench-containers-", dir="/tmp")
    os.chmod(work, 0o755)
    root, bundle = make_root(work), os.path.join(work, "bundle")
    env = dict(os.environ, CAISSON_ROOT=os.path.join(work, "state"), CAISSON_INIT=AGENT)
    container = [CAISSON, "run", "--engine", "container", "--trust", "trusted", "--rootfs", root]
    run = container + ["--network", "none"]
    microvm = [CAISSON, "run", "--network", "none", "--rootfs", root]
    present = [r for r in ("crun", "runc") if shutil.which(r)]
    started = []
    try:
        start = {"caisson (engine)": lambda i: ([ENGINE, "--dir", root, "/bin/true"], None),
                 "caisson run": lambda i: (run + ["--rm", "--", "/bin/true"], None),
                 "the same with a network": lambda i: (container + ["--rm", "--", "/bin/true"], None),
                 "the same, a microVM": lambda i: (microvm + ["--rm", "--", "/bin/true"], None)}
        if shutil.which("mkfs.erofs"):
            # As images of the store are: a file-backed EROFS mount has a page cache of its own each time.
            image = os.path.join(work, "image.erofs")
            subprocess.run(["mkfs.erofs", "--quiet", image, root], check=True)
            start["the same, EROFS file"] = lambda i: ([ENGINE, "--image", image, "/bin/true"], None)
        if shutil.which("bwrap"):
            start["bwrap"] = lambda i: (["bwrap", "--unshare-all", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"], None)
        for r in present:
            make_bundle(work, r, ["/bin/true"])
            os.rename(os.path.join(bundle, "config.json"), os.path.join(work, r + ".true"))
            make_bundle(work, r, ["/bin/sleep", "1000"])
            os.rename(os.path.join(bundle, "config.json"), os.path.join(work, r + ".sleep"))

            def one(i, r=r):
                shutil.copy(os.path.join(work, r + ".true"), os.path.join(bundle, "config.json"))
                return [r, "run", "bench-%d-%d" % (os.getpid(), i)], bundle
            start[r] = one
        result = {"start": take_turns(start, a.runs, env)}

        execs, memory = {}, {}
        name = "bench-%d" % os.getpid()
        box = subprocess.run(run + ["-d", "--name", name, "--", "/bin/sleep", "1000"], env=env, check=True, stdout=subprocess.PIPE, text=True)
        started.append([CAISSON, "rm", "-f", name])
        execs["caisson exec"] = lambda i: ([CAISSON, "exec", name, "/bin/true"], None)
        memory["caisson"] = charge("/caisson/" + box.stdout.strip())
        vm = subprocess.run(microvm + ["-d", "--name", name + "vm", "--", "/bin/sleep", "1000"], env=env, check=False, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip
        if vm.returncode == 0:
            started.append([CAISSON, "rm", "-f", name + "vm"])
            execs["the same, a microVM"] = lambda i: ([CAISSON, "exec", name + "vm", "/bin/true"], None)
        for r in present:
            shutil.copy(os.path.join(work, r + ".sleep"), os.path.join(bundle, "config.json"))
            with open(os.devnull, "r+") as null:
                p = subprocess.run([r, "run", "--detach", name + r], cwd=bundle, stdin=null, stdout=null, stderr=null, check=False)
            if p.returncode:
                continue
            started.append([r, "delete", "--force", name + r])
            execs[r + " exec"] = lambda i, r=r: ([r, "exec", name + r, "/bin/true"], None)
            memory[r] = charge(name + r)
        result["exec"] = take_turns(execs, a.runs, env)
        result["memory"] = memory
        print("Containers: medians of %d" % a.runs)
        for part, title in (("start", "start of /bin/true"), ("exec", "in a running one")):
            print("  %-24s %9s %9s %9s %9s" % (title, "ms", "p90", "CPU ms", "/ crun"))
            for n, r in result[part].items():
                print("  %-24s %9.2f %9.2f %9.2f %9s" % (n, r["ms"], r["p90_ms"], r["cpu_ms"], "%.2f" % r["to_crun"] if "to_crun" in r else "-"))
        print("  memory charged to an idle one: " + ", ".join("%s %.2f MiB" % (n, m / 2**20) for n, m in memory.items() if m))
    finally:
        for argv in started:
            subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(work, ignore_errors=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
