# SPDX-License-Identifier: Apache-2.0
"""A world of a test's own, and everything that Caisson has in it, counted.

enter() starts the test again in process, mount and network namespaces made for it, with an empty /run/caisson and a root directory in memory
or on disk. So all processes, links, rules, mounts and leases seen from inside are the test's or Caisson's, and "nothing is left" can be
meant literally. Control groups have no such namespace: those of the sandboxes' ids are looked for.

Environment: CAISSON (the program; default: the build tree's), KEEP (leaves the directory of the test).
"""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

CAISSON = os.environ.get("CAISSON") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/src/cli/caisson")
ENGINES = {"microvm": ["--accel", "soft", "-m", "128M"], "container": ["--engine", "container", "--trust", "trusted"]}
OURS = ("caisson", "caisson-vmm", "caisson-fs", "caisson-net", "caisson-image")
LINGER_MS = 200
libc = ctypes.CDLL(None, use_errno=True)


def skip(why):
    print("1..0 # SKIP " + why, flush=True)
    print("skipped: " + why, file=sys.stderr)
    sys.exit(77)


def needs(*programs):
    if os.geteuid() != 0:
        skip("namespaces of the test's own are made as root")
    for p in ("unshare", "ip", "nft") + programs:
        if not shutil.which(p):
            skip(p + " is not installed")
    p = subprocess.run([CAISSON, "doctor", "--cached"], stdout=subprocess.PIPE, text=True)
    for line in p.stdout.splitlines():
        if line.startswith("missing") and line.split()[1] in ("monitor", "kernel", "cmdline", "initramfs", "image"):
            skip(line.split(None, 2)[2])


def enter():
    """Goes on only in the new namespaces."""
    if os.environ.get("CAISSON_TEST_WORLD") != "1":
        os.environ["CAISSON_TEST_WORLD"] = "1"
        top = tempfile.mkdtemp(prefix="caisson-soak-")
        os.environ["CAISSON_TEST_TOP"] = top
        p = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", sys.executable] + sys.argv)
        if p.returncode == 0 and not os.environ.get("KEEP"):
            shutil.rmtree(top, ignore_errors=True)
        sys.exit(p.returncode if p.returncode >= 0 else 1)
    top = os.environ["CAISSON_TEST_TOP"]
    os.environ.update(CAISSON_ROOT=top + "/root", XDG_CACHE_HOME=top + "/cache", XDG_STATE_HOME=top + "/state",
                      CAISSON_NET_LINGER_MS=str(LINGER_MS))  # fmt: skip
    sh("ip", "link", "set", "lo", "up")
    os.makedirs("/run/caisson", exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", "mode=0711", "run", "/run/caisson")
    # This process is the PID 1 that orphans come to.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return top


def sh(*words, check=True, **more):
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if check and p.returncode:
        raise AssertionError("%s: status %d: %s" % (" ".join(words), p.returncode, p.stderr.strip()))
    return p.stdout


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return "status %s, out %r, err %r" % (self.status, self.out[-300:], self.err[-600:])


running = set()  # process ids of commands that this test has started and will wait for
started = threading.Lock()


def cai(*words, stdin=None, timeout=90, check=False, on_start=None):
    """One caisson command. A command that does not end in time is a failure of its own: nothing may hang."""
    with started:
        p = subprocess.Popen([CAISSON] + [str(w) for w in words], stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        running.add(p.pid)
    try:
        if on_start:
            on_start(p)
        out, err = p.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        where = stack_of(p.pid)
        p.kill()
        p.communicate()
        raise AssertionError("caisson %s did not end within %d s; %s" % (" ".join(map(str, words)), timeout, where)) from None
    finally:
        running.discard(p.pid)
    r = Result(p.returncode, out, err)
    if check and r.status:
        raise AssertionError("caisson %s: %r" % (" ".join(map(str, words)), r))
    return r


def stack_of(pid):
    def read(name):
        try:
            with open("/proc/%d/%s" % (pid, name)) as f:
                return f.read().strip()
        except OSError:
            return "?"

    fds = []
    try:
        for fd in os.listdir("/proc/%d/fd" % pid):
            fds.append(fd + "=" + os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    except OSError:
        pass
    return "it waits in %s (%s), with %s" % (read("wchan"), read("syscall"), " ".join(fds))


def ps(*words):
    return json.loads(cai("ps", "--json", *words, check=True).out)


def inspect(name):
    return json.loads(cai("inspect", name, check=True).out)[0]


def wait_for(what, seconds=30, step=0.05):
    """Until what() returns nothing; what it returned last is the complaint."""
    end = time.monotonic() + seconds
    while True:
        left = what()
        if not left:
            return
        if time.monotonic() > end:
            raise AssertionError("after %g s: %s" % (seconds, left))
        time.sleep(step)


# --- What there is ----------------------------------------------------------------------------------------------------------


def stat_fields(pid):
    with open("/proc/%d/stat" % pid) as f:
        return f.read().rpartition(")")[2].split()


def processes():
    """{pid: name of the program} of all but this test's own; zombies that came to us are reaped on the way."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in (os.getpid(),):
            continue
        pid = int(entry)
        try:
            state, parent = stat_fields(pid)[:2]
            if state == "Z":
                with started:
                    if int(parent) == os.getpid() and pid not in running:
                        os.waitpid(pid, os.WNOHANG)
                continue
            found[pid] = os.path.basename(os.readlink("/proc/%d/exe" % pid)) or "?"
        except (FileNotFoundError, ProcessLookupError, ChildProcessError):
            pass
    return found


def describe(pids):
    said = []
    for pid in pids:
        try:
            with open("/proc/%d/cmdline" % pid) as f:
                said.append("%d<%s (%s)" % (pid, stat_fields(pid)[1], f.read().replace("\0", " ").strip()))
        except OSError:
            pass
    return ", ".join(said)


def ours():
    return {pid: name for pid, name in processes().items() if name in OURS}


def runner_of(name):
    return inspect(name)["runner_pid"]


def links():
    return [x["ifname"] for x in json.loads(sh("ip", "-j", "link")) if x["ifname"] != "lo"]


def tables():
    return [x["table"]["family"] + " " + x["table"]["name"] for x in json.loads(sh("nft", "-j", "list", "tables"))["nftables"] if "table" in x]


def mounts():
    with open("/proc/self/mountinfo") as f:
        return sorted(" ".join(line.split()[2:5]) for line in f)


def cgroups(ids):
    found = []
    for top, dirs, _ in os.walk("/sys/fs/cgroup"):
        if os.path.basename(top) == "caisson":
            found += [os.path.join(top, d) for d in dirs if d in ids]
            dirs[:] = []
        elif top.count("/") > 6:
            dirs[:] = []
    return found


def loops(below):
    found = []
    for d in os.listdir("/sys/block"):
        try:
            with open("/sys/block/%s/loop/backing_file" % d) as f:
                if f.read().startswith(below):
                    found.append(d)
        except OSError:
            pass
    return found


def leases():
    found = []
    for top, _, files in os.walk("/run/caisson"):
        found += [os.path.join(top, f) for f in files if f != "lock"]
    return found


class Ground:
    """What there was before; left() says in words what there is beyond that."""

    def __init__(self):
        self.mounts, self.links, self.tables, self.before = mounts(), links(), tables(), set(processes())
        self.sysctl = self.forwarding()

    @staticmethod
    def forwarding():
        with open("/proc/sys/net/ipv4/ip_forward") as f:
            return f.read().strip()

    def left(self, ids=()):
        said = []
        alive = set(processes()) - self.before
        if alive:
            said.append("processes: " + describe(alive))
        for what, now, before in (("mounts", mounts(), self.mounts), ("links", links(), self.links), ("tables", tables(), self.tables)):
            if now != before:
                said.append("%s: %s" % (what, [x for x in now if x not in before] or [x for x in before if x not in now]))
        if self.forwarding() != self.sysctl:
            said.append("ip_forward is " + self.forwarding())
        for what, now in (("leases", leases()), ("control groups", cgroups(ids)), ("loop devices", loops(os.environ["CAISSON_ROOT"]))):
            if now:
                said.append("%s: %s" % (what, now))
        return "; ".join(said)


def files_left(*names):
    """What is in these directories of the root, lock files apart."""
    found = []
    for d in names:
        path = os.path.join(os.environ["CAISSON_ROOT"], d)
        if os.path.isdir(path):
            found += [os.path.join(d, f) for f in os.listdir(path) if f != "lock"]
    return found


def memory(pid):
    """Resident bytes that are the process's own: anonymous and private, without shared memory (guest RAM is a memfd)."""
    total = 0
    with open("/proc/%d/smaps_rollup" % pid) as f:
        for line in f:
            if line.startswith(("Private_Dirty:", "Private_Clean:")):
                total += int(line.split()[1]) << 10
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("RssShmem:"):
                total -= int(line.split()[1]) << 10
    return total


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def threads(pid):
    return len(os.listdir("/proc/%d/task" % pid))


# --- Running cases ----------------------------------------------------------------------------------------------------------


class Cases:
    """TAP on standard output; what a case returns is printed as a comment: the measured facts."""

    def __init__(self):
        self.list = []

    def add(self, title, fn, *args, **named):
        self.list.append((title, lambda: fn(*args, **named)))

    def run(self):
        print("1..%d" % len(self.list), flush=True)
        failed = 0
        for number, (title, fn) in enumerate(self.list, start=1):
            start = time.monotonic()
            try:
                facts = fn()
                print("ok %d - %s" % (number, title))
                print("# %.1f s%s" % (time.monotonic() - start, "; " + facts if facts else ""), flush=True)
            except BaseException:
                failed += 1
                print("not ok %d - %s" % (number, title))
                for line in traceback.format_exc().splitlines():
                    print("# " + line)
                print("# %.1f s" % (time.monotonic() - start), flush=True)
                for name in [x["name"] for x in ps("-a")]:  # the next case has its own
                    cai("rm", "-f", name)
        return 1 if failed else 0


def together(jobs, at_once):
    """Runs functions in threads; the first exception is raised when all have ended."""
    jobs, errors, lock = list(jobs), [], threading.Lock()

    def work():
        while True:
            with lock:
                if not jobs or errors:
                    return
                job = jobs.pop(0)
            try:
                job()
            except BaseException as e:
                with lock:
                    errors.append(e)

    workers = [threading.Thread(target=work) for _ in range(min(at_once, len(jobs)))]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if errors:
        raise errors[0]
