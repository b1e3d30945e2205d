#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cases for terminal.bats: each starts `caisson run` on a pseudo-terminal of its own and plays the user."""

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import sys
import termios
import time

case, command = sys.argv[1], sys.argv[2:]
engine = os.environ.get("E2E_ENGINE", "real")


class Terminal:
    def __init__(self, *flags, rows=24, cols=80, env=None):
        self.text = b""
        # self.tty is kept: the terminal's modes stay readable when the child is gone
        self.fd, self.tty = pty.openpty()
        self.size(rows, cols)
        self.before = termios.tcgetattr(self.tty)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.fd)
            os.setsid()
            fcntl.ioctl(self.tty, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(self.tty, fd)
            if env:
                os.environ.update(env)
            os.execv(command[0], command + list(flags))

    def size(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def send(self, data):
        os.write(self.fd, data)

    def expect(self, what, seconds=60):
        end = time.time() + seconds
        while what not in self.text:
            left = end - time.time()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                sys.exit(f"{case}: {what!r} did not come; so far: {self.text!r}")
            self.text += os.read(self.fd, 65536)
        at = self.text.index(what) + len(what)
        seen, self.text = self.text[:at], self.text[at:]
        return seen

    def drain(self):
        while select.select([self.fd], [], [], 0.2)[0]:
            self.text += os.read(self.fd, 65536)
        return self.text

    def wait(self, status):
        end = time.time() + 30
        while time.time() < end:
            self.drain()
            pid, st = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                got = os.waitstatus_to_exitcode(st)
                if got != status:
                    sys.exit(f"{case}: exit status {got}, not {status}; {self.text!r}")
                return
        os.kill(self.pid, signal.SIGKILL)
        sys.exit(f"{case}: caisson did not end; {self.text!r}")

    def raw(self):
        return not termios.tcgetattr(self.tty)[3] & termios.ICANON

    def check_restored(self):
        if termios.tcgetattr(self.tty) != self.before:
            sys.exit(f"{case}: the terminal's modes are not as before")


# A word that the terminal's echo of the typed line does not contain.
READY = "echo re''ady"


def monitor_pid():
    root = os.environ["CAISSON_ROOT"] + "/sandboxes"
    for name in os.listdir(root):
        with open(f"{root}/{name}/state.json") as f:
            return json.load(f)["engine_pid"]


def shell(*flags, **kw):
    t = Terminal("-it", *flags, "--", "sh", "-c", f"{READY}; exec sh", **kw)
    t.expect(b"ready")
    return t


def size():
    t = Terminal("-it", "--", "sh", "-c", "stty size; tty", rows=33, cols=77)
    t.expect(b"33 77")
    t.expect(b"/dev/pts/")
    t.wait(0)


def resize():
    t = Terminal("-it", "--", "sh", "-c", f"trap 'stty size' WINCH; {READY}; while :; do sleep 0.1; done", rows=20, cols=60)
    t.expect(b"ready")
    t.size(45, 101)
    t.expect(b"45 101")
    os.kill(t.pid, signal.SIGTERM)
    t.wait(143)


def ctrl_c():
    t = Terminal("-it", "--", "sh", "-c", f"trap 'echo inter''rupted; exit 5' INT; {READY}; while :; do sleep 0.1; done")
    t.expect(b"ready")
    if not t.raw():
        sys.exit("the terminal is not raw")
    t.send(b"\x03")
    t.expect(b"interrupted")
    t.wait(5)
    t.check_restored()


def ctrl_d():
    t = shell()
    t.send(b"echo al''ive\n")
    t.expect(b"alive")
    t.send(b"\x04")
    t.wait(0)


def restored():
    t = shell()
    t.send(b"exit 3\n")
    t.wait(3)
    t.check_restored()


def restored_term():
    t = Terminal("-it", "--", "sh", "-c", f"{READY}; exec sleep 60")
    t.expect(b"ready")
    os.kill(t.pid, signal.SIGTERM)
    t.wait(143)
    t.check_restored()


def restored_kill():
    t = shell()
    os.kill(monitor_pid(), signal.SIGKILL)
    t.wait(125)
    t.check_restored()
    if b"killed by signal 9" not in t.text:
        sys.exit(f"no explanation: {t.text!r}")


def term():
    t = Terminal("-it", "--", "sh", "-c", "echo TERM is $TERM.", env={"TERM": "screen-256color"})
    t.expect(b"TERM is screen-256color.")
    t.wait(0)


def sigint():
    t = Terminal("-i", "--", "sh", "-c", f"trap 'echo inter''rupted; exit 6' INT; {READY}; while :; do sleep 0.1; done")
    t.expect(b"ready")
    if t.raw():
        sys.exit("the terminal is raw without -t")
    t.send(b"\x03")
    t.expect(b"interrupted")
    t.wait(6)


def notice():
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)
    t = Terminal("--accel", "auto", "--", "true")
    t.wait(0)
    if b"KVM is" not in t.text:
        print("this host's KVM is usable: there is nothing to say")
        return
    if b"boundary is software" not in t.text or b"to mend it" not in t.text:
        sys.exit(f"an incomplete notice: {t.text!r}")
    t = Terminal("--accel", "auto", "--", "true")
    t.wait(0)
    if b"KVM is" in t.text:
        sys.exit("the notice was repeated")


globals()[case]()
