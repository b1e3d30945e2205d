#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many sandboxes at once run and stop.

    crowd.py [--engine microvm|container] [--count N]

All are started at the same moment, each by a command of its own; when all run, something is executed in each; then all are stopped
together, started again, stopped by as many commands, and removed. Names, exit statuses and addresses must be right, and nothing may be left.
"""
import argparse
import sys

import world
from world import cai, together

PROGRAM = 'trap "exit 7" TERM; echo "I am $1"; while :; do sleep 0.2; done'


def crowd(engine, count):
    ground = world.Ground()
    names = ["c%d" % n for n in range(count)]
    flags = world.ENGINES[engine]

    def start(n):
        cai("run", "-d", "--name", n, *flags, "--", "sh", "-c", PROGRAM, "sh", n, check=True, timeout=300)

    def ask(n):
        r = cai("exec", n, "sh", "-c", "echo hello from $(hostname)", check=True, timeout=120)
        assert r.out == "hello from %s\n" % n, r

    together([lambda n=n: start(n) for n in names], count)
    listed = world.ps()
    assert sorted(x["name"] for x in listed) == sorted(names), listed
    ids = [x["id"] for x in listed]
    addresses = [a for n in names for a in world.inspect(n)["network"]["addresses"]]
    assert len(set(addresses)) == len(addresses) >= count, addresses
    together([lambda n=n: ask(n) for n in names], 8)
    most = len(world.ours())

    def said(n, times):
        out = cai("logs", n, check=True).out
        return None if out == "I am %s\n" % n * times else "%s said %r" % (n, out)

    def ended(times):
        for x in world.ps("-a"):
            got = (x["status"], x["exit_code"], x["starts"])
            assert got == ("exited", 7, times), (x["name"], got, x["error"])

    for n in names:  # until then TERM would not be caught
        world.wait_for(lambda n=n: said(n, 1))
    cai("stop", *names, check=True, timeout=300)
    ended(1)
    world.wait_for(lambda: ground.left(ids))

    together([lambda n=n: cai("start", n, check=True, timeout=300) for n in names], count)
    assert len(world.ps()) == count
    for n in names:
        world.wait_for(lambda n=n: said(n, 2))
    together([lambda n=n: cai("stop", n, check=True, timeout=300) for n in names], count)
    ended(2)
    together([lambda n=n: cai("rm", n, check=True) for n in names], count)
    assert not world.ps("-a")
    world.wait_for(lambda: ground.left(ids))
    assert not world.files_left("sandboxes", "names"), world.files_left("sandboxes", "names")
    return "%d sandboxes at once, twice; %d processes of Caisson's at most" % (count, most)


def brief(engine, count):
    """run --rm from start to end, all at once, in front."""
    ground = world.Ground()

    def one(n):
        r = cai("run", "--rm", *world.ENGINES[engine], "--", "sh", "-c", "echo %d; exit %d" % (n, n), timeout=300)
        assert (r.status, r.out) == (n, "%d\n" % n), r

    together([lambda n=n: one(n) for n in range(count)], count)
    assert not world.ps("-a")
    world.wait_for(ground.left)
    assert not world.files_left("sandboxes", "names"), world.files_left("sandboxes", "names")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=world.ENGINES, default="microvm")
    parser.add_argument("--count", type=int, default=50)
    a = parser.parse_args()
    world.needs()
    world.enter()
    cases = world.Cases()
    cases.add("%d sandboxes at once (%s) are started, used, stopped, started again and removed" % (a.count, a.engine), crowd, a.engine, a.count)
    cases.add("%d commands at once (%s) run to their ends" % (a.count, a.engine), brief, a.engine, a.count)
    return cases.run()


if __name__ == "__main__":
    sys.exit(main())
