#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills of a random process of ours at a random moment lose nothing and leave nothing.

    kills.py [--kills N] [--workers N] [--seed N]

Workers make, run, execute in, pause, stop, start, copy to and remove sandboxes of both engines with shares, published ports and named
networks, and import and remove images, while processes of Caisson's are killed with SIGKILL: commands, runners, monitors, and the helpers
caisson-fs, caisson-net and caisson-image; now and then all at once, with what runs in the sandboxes. Every ROUND kills everything rests and is looked at:

  ps -a tells the truth: what is said to run answers, what is said to have ended has no process, nothing that a command had confirmed is missing;
  every image that an import had confirmed is there, with the same bytes.

At the end all is stopped, and nothing may be left on the host. Then every sandbox is started once more: what had been written and synced in it
is there; when it has been stopped, e2fsck finds its disk clean. All can be removed, and the store is empty then.

A command may fail while things are killed, but with a sentence: never by a signal that nobody sent, and never by waiting for ever.
"""
import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import world
from world import cai

ROUND = 20
BASE = "soak/base"
PROGRAM = 'trap "exit 3" TERM; while :; do sleep 0.1; done'
KEEP = 3  # sandboxes of one worker


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for chunk in iter(lambda: f.read(1 << 20), b""):
            h.update(chunk)
    return h.hexdigest()


def tar_add(tar, name, data=b"", kind=tarfile.REGTYPE, link="", mode=0o755):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    tar.addfile(info, io.BytesIO(data))


def root_tar(path, filler, busybox):
    """A root file system: busybox, and some bytes that make it an image of its own."""
    with tarfile.open(path, "w") as tar:
        for d in ("bin", "dev", "proc", "sys", "tmp", "etc", "root"):
            tar_add(tar, d, kind=tarfile.DIRTYPE)
        with open(busybox, "rb") as f:
            tar_add(tar, "bin/busybox", f.read())
        for name in subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split():
            if name != "busybox":
                tar_add(tar, "bin/" + name, kind=tarfile.SYMTYPE, link="busybox")
        tar_add(tar, "filler", filler)


class Images:
    """Images that exist for certain, with what their files held when they had just been imported."""

    def __init__(self, top, busybox):
        self.top, self.busybox, self.lock = top, busybox, threading.Lock()
        self.known, self.serial = {}, 0  # name: (id, digest)

    def note(self, name, image):
        rootfs = json.loads(cai("image", "inspect", image, check=True).out)[0]["rootfs"]
        with self.lock:
            self.known[name] = (image, digest(rootfs))

    def make(self, name, rnd):
        tar = os.path.join(self.top, name.replace("/", "-") + ".tar")
        root_tar(tar, rnd.randbytes(rnd.choice([1, 1 << 20, 6 << 20])), self.busybox)
        return tar

    def base(self):
        tar = self.make(BASE, random.Random(1))
        cai("image", "import", tar, BASE, check=True)
        self.note(BASE, BASE)
        os.unlink(tar)

    def add(self, rnd, do):
        with self.lock:
            self.serial += 1
            name = "soak/i%d" % self.serial
        tar = self.make(name, rnd)
        r = do("image", "import", tar, name)
        if r.status == 0:
            try:
                self.note(name, name)
            except AssertionError:
                pass  # the command that was to look was killed: not known to exist
        elif r.status > 0:  # nothing half-made may be in the way of a second try
            do("image", "import", tar, name)
        os.unlink(tar)

    def remove(self, rnd, do):
        with self.lock:
            names = [n for n in self.known if n != BASE]
            if len(names) < 4:
                return
            name = rnd.choice(names)
            del self.known[name]
        do("image", "rm", name)

    def check(self):
        have = {tag.rpartition("docker.io/")[2].removesuffix(":latest"): x["id"] for x in json.loads(cai("image", "ls", "--json", check=True).out) for tag in x["tags"]}
        for name in self.known:
            assert name in have, "the image %s is lost; there are %s" % (name, have)
        for name, (image, was) in self.known.items():
            rootfs = json.loads(cai("image", "inspect", name, check=True).out)[0]["rootfs"]
            assert digest(rootfs) == was, "the file of image %s has changed" % name
        return len(self.known)


class Box:
    """What is known for certain of one sandbox."""

    def __init__(self, name, engine, remove):
        self.name, self.engine, self.remove = name, engine, remove
        self.certain = False  # a command has confirmed that it exists, and none has tried to remove it
        self.id = None
        self.marks, self.n_marks = [], 0


class Worker:
    def __init__(self, storm, number, rnd):
        self.storm, self.number, self.rnd, self.error = storm, number, rnd, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.storm.enough.is_set():
                self.step()
        except BaseException as e:
            self.error = e
            self.storm.enough.set()

    def do(self, *words, **more):
        self.storm.n_commands += 1
        r = cai(*words, **more)
        if r.status not in (0, -signal.SIGKILL) and (r.status < 0 or not r.err.strip()) and words[0] != "exec":
            raise AssertionError("caisson %s: %r" % (" ".join(map(str, words)), r))
        return r

    def step(self):
        rnd, boxes = self.rnd, self.storm.boxes[self.number]
        if len(boxes) < KEEP and rnd.random() < 0.5:
            return self.new()
        if not boxes or rnd.random() < 0.15:
            return self.storm.images.add(rnd, self.do) if rnd.random() < 0.75 else self.storm.images.remove(rnd, self.do)
        box = rnd.choice(boxes)
        often = [self.mark] * 5 + [self.stop, self.start, self.restart, self.pause, self.copy, self.look] * 2
        rnd.choice(often + [self.remove])(box)

    def new(self):
        rnd = self.rnd
        box = Box("w%d-%d" % (self.number, self.storm.serial()), rnd.choice(list(world.ENGINES)), rnd.random() < 0.2)
        words = ["--name", box.name, "--stop-timeout", "2"] + world.ENGINES[box.engine]
        if box.remove:
            words.append("--rm")
        if rnd.random() < 0.3:
            words += ["-v", self.storm.share + ":/share"]
        if rnd.random() < 0.3:
            words += ["-p", ":80"]
        words += ["--network", rnd.choice(["none", "soak", "soak"])] if rnd.random() < 0.4 and "-p" not in words else []
        words += [BASE] + ["sh", "-c", PROGRAM]
        self.storm.boxes[self.number].append(box)
        if rnd.random() < 0.8:
            r = self.do("run", "-d", *words)
        else:
            r = self.do("create", *words)
        if r.status == 0:
            box.id, box.certain = r.out.strip(), True

    def mark(self, box):
        """A file that survives whatever is killed from now on: exec has said that it is on the disk."""
        box.n_marks += 1
        name = "m%d" % box.n_marks
        sync = " && fsync /data/" + name if box.engine == "microvm" else ""
        words = ("exec", box.name, "sh", "-c", "mkdir -p /data && echo %s >/data/%s%s" % (name, name, sync))
        r = self.do(*words)
        if "not running" in r.err:
            self.do("start", box.name)
            r = self.do(*words)
        if r.status == 0:
            box.marks.append(name)

    def stop(self, box):
        self.do("stop", box.name)

    def start(self, box):
        self.do("start", box.name)

    def restart(self, box):
        self.do("restart", box.name)

    def pause(self, box):
        self.do("pause", box.name)
        self.do("unpause", box.name)

    def copy(self, box):
        target = os.path.join(self.storm.top, "copy-%d" % self.number)
        self.do("cp", box.name + ":/bin/busybox", target)
        self.do("cp", target, box.name + ":/root/copy") if os.path.exists(target) else None

    def look(self, box):
        self.do(*self.rnd.choice([("ps", "-a"), ("inspect", box.name), ("stats", "--no-stream", box.name), ("top", box.name), ("logs", box.name),
                                  ("image", "ls"), ("network", "ls")]))  # fmt: skip

    def remove(self, box):
        box.certain = False
        r = self.do("rm", "-f", box.name)
        if r.status == 0:
            self.storm.boxes[self.number].remove(box)
            self.storm.gone.append(box)


class Storm:
    def __init__(self, top, seed, n_workers):
        self.top, self.rnd = top, random.Random(seed)
        self.share = os.path.join(top, "share")
        os.mkdir(self.share)
        self.images = Images(top, shutil.which("busybox"))
        self.boxes = [[] for _ in range(n_workers)]
        self.gone, self.n, self.lock = [], 0, threading.Lock()
        self.not_ours = set(world.processes())
        self.enough = threading.Event()
        self.n_commands, self.killed = 0, {}

    def serial(self):
        with self.lock:
            self.n += 1
            return self.n

    def all(self):
        return [b for boxes in self.boxes for b in boxes]

    # --- Killing ----------------------------------------------------------------------------------------------------------

    def targets(self):
        found = {}
        for pid, program in world.ours().items():
            kind = "command" if pid in world.running else "runner" if program == "caisson" else program
            found.setdefault(kind, []).append(pid)
        return found

    def kill_all(self):
        """As when the host goes down: nobody is left who could tidy up."""
        for pid in world.processes():
            if pid not in self.not_ours:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.killed["everything"] = self.killed.get("everything", 0) + 1

    def kill_one(self):
        """Every kind is as likely as any other that there is."""
        end = time.monotonic() + 30
        while not self.enough.is_set() and time.monotonic() < end:
            time.sleep(self.rnd.uniform(0, 0.25))
            found = self.targets()
            if not found:
                continue
            if self.rnd.random() < 0.03:
                self.kill_all()
                return True
            kind = self.rnd.choice(sorted(found))
            try:
                os.kill(self.rnd.choice(found[kind]), signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed[kind] = self.killed.get(kind, 0) + 1
            return True
        return False

    def round(self, kills):
        self.enough.clear()
        workers = [Worker(self, n, random.Random(self.rnd.random())) for n in range(len(self.boxes))]
        for w in workers:
            w.thread.start()
        for _ in range(kills):
            if not self.kill_one():
                break
        self.enough.set()
        for w in workers:
            w.thread.join()
        for w in workers:
            if w.error:
                raise w.error

    # --- Looking ----------------------------------------------------------------------------------------------------------

    def lies(self, exact=True):
        """What ps -a says that is not so, in words."""
        r = cai("ps", "-a", "--json", check=True)
        if r.err.strip():
            return "ps -a complains: " + r.err
        listed = {x["name"]: x for x in json.loads(r.out)}
        for box in self.all():
            x = listed.get(box.name)
            if box.certain and not box.remove and not x:
                return "%s (%s) is lost" % (box.name, box.id)
            if x and x["status"] == "paused":
                cai("unpause", box.name)
                return box.name + " is paused"
            if x and x["status"] == "running":
                r = cai("exec", box.name, "true")
                if r.status:
                    return "%s (%s) is said to run, but: %r; of its runner: %s; there are: %s" % (
                        box.name, x["engine"], r, world.stack_of(x["runner_pid"] or 0), world.describe(world.processes()))  # fmt: skip
        up = {x["id"]: x for x in listed.values() if x["status"] == "running"}
        runners = {x["runner_pid"] for x in up.values()}
        for pid, program in world.ours().items():
            if program == "caisson" and pid not in runners:
                return "a runner of nothing: " + world.describe([pid])
        for pid in world.processes():
            try:
                with open("/proc/%d/cgroup" % pid) as f:
                    ids = {line.rstrip().rpartition("/caisson/")[2][:12] for line in f if "/caisson/" in line}
            except OSError:
                continue
            if ids - set(up):
                return "%s is in the group of %s, which does not run" % (world.describe([pid]), ids - set(up))
        return None

    def check(self):
        world.wait_for(self.lies, 30, 0.3)
        self.images.check()
        # What was made with --rm and has ended is gone; what was never confirmed may exist or not.
        for boxes in self.boxes:
            names = {x["name"] for x in world.ps("-a")}
            boxes[:] = [b for b in boxes if b.name in names]

    def check_marks(self, box):
        r = cai("exec", box.name, "sh", "-c", "cd /data 2>/dev/null; for m; do test \"$(cat $m 2>/dev/null)\" = $m || echo $m; done", "sh", *box.marks, check=True)
        assert not r.out, "%s (%s) has lost what was synced in it: %s of %s" % (box.name, box.engine, r.out.split(), box.marks)

    def finish(self, ground):
        kept = [b for b in self.all()]
        up = [x["name"] for x in world.ps()]
        if up:
            cai("stop", *up, check=True)
        ids = [x["id"] for x in world.ps("-a")] + [b.id for b in self.gone + kept if b.id]
        world.wait_for(lambda: ground.left(ids), 20)
        alive = {x["name"] for x in world.ps("-a")}
        disks = marks = 0
        for box in kept:
            if box.name not in alive or box.remove:  # made with --rm: gone by its end
                continue
            cai("start", box.name, check=True)
            self.check_marks(box)
            cai("stop", box.name, check=True)
            marks += len(box.marks)
            x = world.inspect(box.name)
            assert (x["status"], x["error"]) == ("exited", ""), x
            disk = os.path.join(x["directory"], "upper.ext4")
            assert os.path.exists(disk) == (box.engine == "microvm"), disk
            if box.engine == "microvm":
                disks += 1
                p = subprocess.run(["e2fsck", "-f", "-n", disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                assert p.returncode == 0, p.stdout
        for name in sorted(alive):
            cai("rm", name, check=True)
        cai("network", "rm", "soak", check=True)
        n_images = self.images.check()
        cai("image", "prune", check=True)
        world.wait_for(lambda: ground.left(ids), 20)
        templates = cai("template", "ls", "-q", check=True).out.split()
        if templates:
            cai("template", "rm", *templates, check=True)
        left = world.files_left("sandboxes", "names", "images/tmp", "networks", "templates")
        left = [f for f in left if not f.endswith(".no")]  # that one could not be made is remembered for a while
        assert not left, "left in the store: %s" % left
        return "%d commands; killed: %s; %d sandboxes kept, %d marks and %d disks checked, %d images" % (
            self.n_commands, ", ".join("%d %s" % (n, k) for k, n in sorted(self.killed.items())), len(alive), marks, disks, n_images)  # fmt: skip


def storm(top, kills, n_workers, seed):
    ground = world.Ground()
    s = Storm(top, seed, n_workers)
    s.images.base()
    cai("network", "create", "soak", check=True)
    while sum(s.killed.values()) < kills:
        before = sum(s.killed.values())
        s.round(min(ROUND, kills - before))
        assert sum(s.killed.values()) > before, "nothing could be killed"
        s.check()
        print("# %d kills, %d commands: all as it should be" % (sum(s.killed.values()), s.n_commands), flush=True)
    return s.finish(ground)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None)
    a = parser.parse_args()
    world.needs("busybox", "e2fsck")
    top = world.enter()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    cases = world.Cases()
    print("# --seed %d" % seed)
    cases.add("%d kills at random moments lose nothing and leave nothing" % a.kills, storm, top, a.kills, a.workers, seed)
    return cases.run()


if __name__ == "__main__":
    sys.exit(main())
