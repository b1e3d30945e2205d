#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many commands in one sandbox leak nothing.

    execs.py [--engine microvm|container] [--count N]

Descriptors, threads, processes and memory, of the agent and in the guest, of the runner, the monitor and the helpers, before and after N
commands: plain ones, with standard input, with a terminal, in the background, that fail, that cannot be started, and whose client is
killed while they run.
"""
import argparse
import json
import os
import sys
import time

import world
from world import cai

GROWTH = 1 << 20  # bytes that a process of the host may have grown by: allocators keep some
AGENT_GROWTH = 256 << 10
GUEST_GROWTH = 12 << 20  # page tables, dentries and slabs of a kernel that has run a thousand programs
NAME = "subject"


def host_processes():
    """{role: pid}: by program, and by what was started first where there are several."""
    found = {}
    for pid, program in sorted(world.ours().items()):
        nth = sum(name.split()[0] == program for name in found)
        found[program if not nth else "%s %d" % (program, nth + 1)] = pid
    return found


def agent_in_guest():
    """Descriptors and resident KiB of PID 1, as the guest sees it: what is counted is there in the same way each time."""
    out = cai("exec", NAME, "sh", "-c", "ls /proc/1/fd | wc -l; sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/1/status", check=True).out.split()
    return int(out[0]), int(out[1]) << 10


def snapshot(engine):
    """{what: number}; taken when everything is quiet."""
    stats = json.loads(cai("stats", "--json", NAME, check=True).out)[0]
    listed = json.loads(cai("top", "--json", NAME, check=True).out)
    user = [p for p in listed if p["pid"] != 1 and not p["cmd"].startswith("[")]
    n = {"guest processes": len(user), "agent descriptors": 0, "agent memory": 0}
    n["agent descriptors"], n["agent memory"] = agent_in_guest()
    if engine == "microvm":
        memory = stats["guest"]["memory"]
        n["guest memory in use"] = memory["total"] - memory["available"]
    else:
        n["control group memory"] = stats["host"]["memory"] - stats["host"].get("memory_file", 0)
        n["control group processes"] = stats["host"]["pids"]
    # The least of several looks: a connection that the commands above used may be closing still.
    looks = []
    for _ in range(10):
        look = {"host processes": len(world.processes())}
        for role, pid in host_processes().items():
            look[role + " descriptors"], look[role + " threads"], look[role + " memory"] = world.descriptors(pid), world.threads(pid), world.memory(pid)
        looks.append(look)
        time.sleep(0.1)
    for what in looks[-1]:
        n[what] = min(look[what] for look in looks if what in look)
    return n


def one(k):
    """Command number k, and what must come of it."""
    kind = k % 10
    if kind == 0:
        r = cai("exec", NAME, "cat", "/mnt/file")
        assert (r.status, r.out) == (0, "shared"), r
    elif kind < 4:
        r = cai("exec", NAME, "sh", "-c", "echo %d" % k)
        assert (r.status, r.out) == (0, "%d\n" % k), r
    elif kind == 4:
        r = cai("exec", "-i", NAME, "cat", stdin="x" * 70000)
        assert (r.status, len(r.out)) == (0, 70000), r
    elif kind == 5:
        r = cai("exec", "-t", NAME, "sh", "-c", "test -t 1 && echo tty")
        assert (r.status, r.out) == (0, "tty\n"), r
    elif kind == 6:
        r = cai("exec", "-d", NAME, "true")
        assert r.status == 0, r
    elif kind == 7:
        r = cai("exec", NAME, "sh", "-c", "exit %d" % (k % 100 + 1))
        assert r.status == k % 100 + 1, r
    elif kind == 8:
        r = cai("exec", NAME, "no-such-program")
        assert r.status == 127, r
    else:
        r = cai("exec", NAME, "sh", "-c", "echo started; sleep 1000", on_start=killed_when_it_runs)
        assert r.status == -9, r


def killed_when_it_runs(p):
    assert p.stdout.readline() == "started\n"
    p.kill()


def execs(engine, count):
    ground = world.Ground()
    share = os.path.join(os.environ["CAISSON_TEST_TOP"], "share")
    os.mkdir(share)
    with open(share + "/file", "w") as f:
        f.write("shared")
    cai("run", "-d", "--name", NAME, "-v", share + ":/mnt", "-p", ":80", *world.ENGINES[engine], "--", "sh", "-c", 'trap "exit 0" TERM; sleep 100000 & wait', check=True)
    ids = [world.inspect(NAME)["id"]]
    for k in range(40):  # buffers reach their size
        one(k)

    def quiet():
        world.wait_for(lambda: [p for p in json.loads(cai("top", "--json", NAME, check=True).out) if p["cmd"] == "sleep 1000"])
        return snapshot(engine)

    before = quiet()
    start = time.monotonic()
    for k in range(count):
        one(k)
    seconds = time.monotonic() - start
    after = quiet()
    wrong = []
    for what in sorted(before | after):
        was, now = before.get(what, 0), after.get(what, 0)
        if what.startswith("guest memory") or what.startswith("control group memory"):
            allowed = GUEST_GROWTH
        elif what == "agent memory":
            allowed = AGENT_GROWTH
        elif what.endswith("memory"):
            # The block cache of the software CPU is bounded, and part of the monitor's memory.
            allowed = GROWTH + ((24 << 20) if what.startswith("caisson-vmm") else 0)
        else:
            allowed = 0
        if now - was > allowed:
            wrong.append("%s: %d before, %d after" % (what, was, now))
    facts = "%.1f ms a command; " % (seconds * 1e3 / count)
    facts += ", ".join("%s %d" % (w, before[w]) if before[w] == after.get(w) else "%s %d to %d" % (w, before[w], after.get(w, 0)) for w in before)
    assert not wrong, "; ".join(wrong) + "; all: " + facts
    cai("stop", "-t", "5", NAME, check=True)
    cai("rm", NAME, check=True)
    world.wait_for(lambda: ground.left(ids))
    return facts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=world.ENGINES, default="microvm")
    parser.add_argument("--count", type=int, default=1000)
    a = parser.parse_args()
    world.needs()
    world.enter()
    cases = world.Cases()
    cases.add("%d commands in one sandbox (%s) leak nothing" % (a.count, a.engine), execs, a.engine, a.count)
    return cases.run()


if __name__ == "__main__":
    sys.exit(main())
