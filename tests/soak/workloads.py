#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What people do in sandboxes over the network, and what must not be possible.

    workloads.py [--engine microvm|container] [--debian DIR]

The world: this test's own network namespace is the host (198.51.100.2, 192.0.2.77), behind it another one is the outside (198.51.100.1), with a
web and a git server. With --debian an image is made with `caisson image bootstrap debian` in the root directory DIR (kept for the next run)
and `apt-get update && apt-get install` is tried in a sandbox of it, over the machine's own network, from the mirror that its apt uses; the
web server is nginx then, and `git clone` is tried. Without, everything is done with the built-in image.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

import world
from world import cai, sh

PACKAGES = "git,nginx-light"
DEBIAN = "soak/debian-" + PACKAGES.replace(",", "-")
WAN4, OUT4, LAN4 = "198.51.100.2", "198.51.100.1", "192.0.2.77"
WAN6, OUT6 = "2001:db8:1::2", "2001:db8:1::1"
SECRET = "the-hosts-secret"
PROBE = os.environ.get("CAISSON_TEST_PROBE") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/tests/soak/soak-probe")
WAIT = ["sh", "-c", 'trap "exit 0" TERM; sleep 100000 & wait']


# --- Over the machine's own network -----------------------------------------------------------------------------------------


def bootstrap():
    have = [t for x in json.loads(cai("image", "ls", "--json", check=True).out) for t in x["tags"]]
    if not any("/" + DEBIAN + ":" in t for t in have):
        cai("image", "bootstrap", "debian", DEBIAN, "--packages", PACKAGES, timeout=1200, check=True)


def apt(engine):
    """In a namespace of the machine's: nothing is sent but what apt-get sends to its mirror."""
    start = time.monotonic()
    script = "set -e; apt-get -q update; apt-get -q install -y --no-install-recommends hello; hello"
    r = cai("run", "--rm", *world.ENGINES[engine], *(["-m", "1G"] if engine == "microvm" else []), DEBIAN, "sh", "-c", script, timeout=1500)
    assert r.status == 0 and r.out.endswith("Hello, world!\n"), r
    fetched = re.findall(r"Fetched (.*)", r.out)
    return "%.0f s; fetched %s" % (time.monotonic() - start, "; ".join(fetched))


# --- The world --------------------------------------------------------------------------------------------------------------


def outside(*words, **more):
    return sh("ip", "netns", "exec", "outside", *words, **more)


def make_world():
    os.makedirs("/run/netns", exist_ok=True)
    sh("mount", "-t", "tmpfs", "netns", "/run/netns")
    sh("ip", "netns", "add", "outside")
    sh("ip", "link", "add", "wan", "type", "veth", "peer", "name", "out", "netns", "outside")
    for words in (["addr", "add", WAN4 + "/24", "dev", "wan"], ["addr", "add", WAN6 + "/64", "dev", "wan", "nodad"], ["addr", "add", LAN4 + "/32", "dev", "wan"],
                  ["link", "set", "wan", "up"]):  # fmt: skip
        sh("ip", *words)
    for words in (["link", "set", "lo", "up"], ["addr", "add", OUT4 + "/24", "dev", "out"], ["addr", "add", OUT6 + "/64", "dev", "out", "nodad"],
                  ["link", "set", "out", "up"], ["addr", "add", "169.254.169.254/32", "dev", "lo"]):  # fmt: skip
        outside("ip", *words)
    sh("ip", "route", "add", "default", "via", OUT4)
    sh("ip", "-6", "route", "add", "default", "via", OUT6)
    sh("ip", "route", "add", "169.254.169.254/32", "via", OUT4)


class Serving:
    """with Serving(text, port): says text to whoever asks there, over TCP and UDP, at any address of the host or of another namespace."""

    def __init__(self, text, port, ns=None):
        enter = ["ip", "netns", "exec", ns] if ns else []
        self.p = subprocess.Popen(enter + [PROBE, "serve", text, str(port)], stdout=subprocess.PIPE, text=True)
        world.running.add(self.p.pid)
        assert self.p.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()
        world.running.discard(self.p.pid)


def parse(out):
    """{target: what it said}"""
    return dict(line.split(" ", 1) for line in out.splitlines())


def reached(name, targets):
    """What answers of "tcp,ADDR,PORT" and "udp,ADDR,PORT", tried from inside a sandbox, all at once."""
    return parse(cai("exec", name, "/root/probe", "try", *targets, check=True).out)


def both(*places):
    return [kind + "," + place for place in places for kind in ("tcp", "udp")]


def address(name, six=False):
    return next(a.partition("/")[0] for a in world.inspect(name)["network"]["addresses"] if (":" in a) == six)


def run(engine, name, *words, image=(), program=WAIT):
    cai("run", "-d", "--name", name, *world.ENGINES[engine], *words, *(image or ["--"]), *program, check=True)


def clear():
    names = [x["name"] for x in world.ps("-a")]
    if names:
        cai("rm", "-f", *names, check=True)


def other(engine):
    return "container" if engine == "microvm" else "microvm"


# --- Cases ------------------------------------------------------------------------------------------------------------------


def listening(kind, name, *words):
    """A sandbox that says its name on port 7000 of all its addresses."""
    run(kind, name, *words)
    cai("cp", PROBE, name + ":/root/probe", check=True)
    cai("exec", "-d", name, "/root/probe", "serve", name, "7000", check=True)


def walls(engine):
    """Everything listens everywhere, and is heard by whoever may: only then does silence say anything."""
    cai("network", "create", "club", check=True)
    listening(engine, "mine")
    listening(engine, "near", "-p", ":7000")
    listening(other(engine), "far", "-p", "7000:7000", "-p", "7000:7000/udp")
    listening(engine, "member", "--network", "club")
    addrs = {n: (address(n), address(n, True)) for n in ("mine", "near", "far", "member")}
    gateway = world.inspect("mine")["network"]["gateway4"]
    pool = gateway.rpartition(".")[0].rpartition(".")[0]
    host = [WAN4, LAN4, "127.0.0.1", pool + ".255.253", WAN6, "::1"]
    tried = 0
    with Serving(SECRET, 7777), Serving("outside", 7777, ns="outside"):
        for n in addrs:  # they do listen
            own = both(*(a + ",7000" for a in addrs[n] + ("127.0.0.1", "::1")))
            world.wait_for(lambda: set(own) - set(reached(n, own)))
        assert parse(sh(PROBE, "try", *both(*(h + ",7777" for h in host)))) == {t: SECRET for t in both(*(h + ",7777" for h in host))}
        assert parse(sh(PROBE, "try", *both("127.0.0.1,7000"))) == {t: "far" for t in both("127.0.0.1,7000")}

        open_ = both(OUT4 + ",7777", OUT6 + ",7777")
        closed = both(*(h + ",7777" for h in host))  # the host's addresses and its loopback
        closed += both("169.254.169.254,7777")  # what a cloud serves its machines
        closed += both(gateway + ",7777", gateway + ",7000", WAN4 + ",7000", LAN4 + ",7000")  # the gateway; a port published on loopback
        closed += [t for n in addrs for a in addrs[n] for t in both(a + ",7000")]
        for name in addrs:
            ways = open_ + [t for t in closed if t.split(",")[1] not in addrs[name]]
            got = reached(name, ways)
            assert got == {t: "outside" for t in open_}, "%s reached %s, not %s" % (name, got, open_)
            tried += len(ways) - len(open_)

        # From outside: neither by a route to the sandboxes' addresses, nor a port that is published on loopback. From the host: only that.
        outside("ip", "route", "replace", pool + ".0.0/16", "via", WAN4)
        outside("ip", "route", "replace", "fc00::/7", "via", WAN6)
        ways = both(WAN4 + ",7000", LAN4 + ",7000", WAN6 + ",7000", *(a + ",7000" for n in addrs for a in addrs[n]))
        assert not outside(PROBE, "try", *ways)
        assert not sh(PROBE, "try", *ways)
        assert parse(outside(PROBE, "try", "tcp,%s,7777" % WAN4))  # not because there is no way at all
        tried += 2 * len(ways)
    clear()
    cai("network", "rm", "club", check=True)
    return "%d closed ways tried" % tried


def three_members(engine):
    """Both engines in one network."""
    cai("network", "create", "trio", check=True)
    serve = "mkdir /tmp/w; echo page of %s >/tmp/w/index.html; exec httpd -f -h /tmp/w"
    names = {"one": engine, "two": other(engine), "three": engine}
    for n, kind in names.items():
        run(kind, n, "--network", "trio", program=["sh", "-c", serve % n])
    run(engine, "stranger")
    for n in names:
        for m in names:
            fetch = "for i in 1 2 3 4 5 6 7 8 9 10; do timeout 5 wget -q -O - http://%s/ && break; sleep 0.2; done" % m
            r = cai("exec", n, "sh", "-c", fetch)
            assert r.out == "page of %s\n" % m, (n, m, r)
    r = cai("exec", "stranger", "sh", "-c", "timeout 2 wget -q -O - http://two/; timeout 2 wget -q -O - http://%s/" % address("two"))
    assert r.status and not r.out, r
    members = json.loads(cai("network", "inspect", "trio", check=True).out)
    assert len(members[0]["members"]) == 3, members
    clear()
    cai("network", "rm", "trio", check=True)


def load(engine, debian):
    if debian:
        program = ["sh", "-c", "echo served >/var/www/html/index.html; exec nginx -g 'daemon off;'"]
        image, port = [DEBIAN], "80"
    else:
        program = ["sh", "-c", "mkdir /tmp/w; echo served >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"]
        image, port = (), "80"
    run(engine, "web", "-p", "8080:" + port, image=image, program=program)

    def silent():
        p = subprocess.run(["curl", "-s", "--max-time", "5", "http://127.0.0.1:8080/"], stdout=subprocess.PIPE, text=True)
        return None if p.stdout == "served\n" else "curl gave %r (%d): %r" % (p.stdout, p.returncode, cai("logs", "web"))

    world.wait_for(silent, 60, 0.3)
    facts = "curl only"
    if shutil.which("wrk"):
        out = sh("wrk", "-t", "1", "-c", "8", "-d", "4s", "--timeout", "10s", "http://127.0.0.1:8080/")
        assert "Non-2xx" not in out, out
        # Without keep-alive busybox's server closes after each answer, which wrk counts as it should: no error.
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        assert not errors or not any(map(int, errors.groups())), out
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        assert requests > 20, out
        facts = "%s requests a second with 8 connections" % re.search(r"Requests/sec:\s*(\S+)", out).group(1)
    assert silent() is None, silent()
    clear()
    return facts


def clone(engine, top):
    repo, work = top + "/git/repo.git", top + "/git/work"
    os.makedirs(work)
    env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@example.org", GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t@example.org")
    for k in range(400):
        os.makedirs("%s/d%d" % (work, k % 20), exist_ok=True)
        with open("%s/d%d/f%d" % (work, k % 20, k), "wb") as f:
            f.write(os.urandom(8000))
    for words in (["init", "-q", work], ["-C", work, "add", "."], ["-C", work, "commit", "-q", "-m", "all"], ["clone", "-q", "--bare", work, repo]):
        sh("git", *words, env=env)
    tree = sh("git", "-C", work, "rev-parse", "HEAD^{tree}", env=env).strip()
    daemon = subprocess.Popen(["ip", "netns", "exec", "outside", "git", "daemon", "--export-all", "--base-path=" + top + "/git", "--listen=" + OUT4, "--reuseaddr"],
                              env=env, stderr=subprocess.DEVNULL)  # fmt: skip
    world.running.add(daemon.pid)
    try:
        start = time.monotonic()
        script = ("cd /root; for i in 1 2 3 4 5; do git clone -q git://%s/repo.git && break; sleep 1; done; cd repo && git fsck --full >/dev/null && "
                  "git status --porcelain && git rev-parse 'HEAD^{tree}'" % OUT4)  # fmt: skip
        r = cai("run", "--rm", *world.ENGINES[engine], *(["-m", "512M"] if engine == "microvm" else []), DEBIAN, "sh", "-c", script, timeout=300)
        assert (r.status, r.out.strip()) == (0, tree), r
        return "3.2 MB in 400 files, checked, in %.1f s" % (time.monotonic() - start)
    finally:
        # The server's children, too: they are in its session.
        for pid in [p for p, n in world.processes().items() if n.startswith("git")]:
            os.kill(pid, 9)
        daemon.wait()
        world.running.discard(daemon.pid)


def clean(ground):
    world.wait_for(ground.left, 20)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=world.ENGINES, default="microvm")
    parser.add_argument("--debian")
    a = parser.parse_args()
    world.needs("curl", *(["mmdebstrap", "git"] if a.debian else []))
    cases = world.Cases()
    facts = os.environ.get("CAISSON_TEST_FACTS")
    if a.debian and facts is None:
        os.environ["CAISSON_ROOT"] = os.path.abspath(a.debian)
        try:
            bootstrap()
            os.environ["CAISSON_TEST_FACTS"] = apt(a.engine)
        except AssertionError as e:
            os.environ["CAISSON_TEST_FACTS"] = "failed: %s" % e
    top = world.enter()
    if a.debian:
        os.environ["CAISSON_ROOT"] = os.path.abspath(a.debian)

        def tell():
            assert not facts.startswith("failed"), facts
            return facts

        cases.add("apt-get update and install in a sandbox (%s)" % a.engine, tell)
    make_world()
    ground = world.Ground()
    cases.add("no way to the host, its loopback, or another sandbox (%s)" % a.engine, walls, a.engine)
    cases.add("three members of a network, of both engines, reach each other by name (%s)" % a.engine, three_members, a.engine)
    cases.add("a published web server takes load (%s)" % a.engine, load, a.engine, bool(a.debian))
    if a.debian:
        cases.add("git clone from a server outside (%s)" % a.engine, clone, a.engine, top)
    cases.add("nothing is left on the host", clean, ground)
    return cases.run()


if __name__ == "__main__":
    sys.exit(main())
