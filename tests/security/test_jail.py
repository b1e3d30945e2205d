#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The monitor's jail, seen from outside and tried from inside.

    test_jail.py MONITOR      MONITOR is caisson-vmm built with the accelerator made for tests

From outside: what /proc shows of a running monitor. From inside: calls that the jail must forbid, made by the monitor
itself at START and by a vCPU's thread, must each end it with a message that names the call.
"""
import array
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

MONITOR = None
MAGIC, VERSION = 0x4E534943, 2
CONFIGURE, START, PAUSE, RESUME, QUERY, STOP = range(1, 7)
OK, ERROR, STATUS, READY, ENDED = 64, 65, 66, 128, 129
END_STOPPED, END_JAIL = 5, 7
SELFTEST = 1
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
OUR_NS = {ns: os.readlink("/proc/self/ns/" + ns) for ns in NAMESPACES}


def string(s):
    return struct.pack("<I", len(s)) + s


def kernel(program):
    """A memfd with an ELF executable that carries the program at 1 MiB."""
    ph = struct.pack("<IIQQQQQQ", 1, 7, 0x1000, 0x100000, 0x100000, len(program), len(program), 0x1000)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0) + ph
    fd = os.memfd_create("kernel")
    os.write(fd, head.ljust(0x1000, b"\0") + program)
    return fd


class Monitor:
    def __init__(self, program=b"h", probe=b"", vcpus=1, preexec=None, extra_fds=(), prefix=()):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(20)
        self.sock = ours
        keep = os.dup(theirs.fileno())
        theirs.close()

        def child():
            if preexec:
                preexec()
            os.dup2(keep, 3)
            for fd in extra_fds:
                os.set_inheritable(fd, True)

        self.process = subprocess.Popen([*prefix, MONITOR], preexec_fn=child, close_fds=False, stderr=subprocess.PIPE)
        os.close(keep)
        fd = kernel(program)
        flags = SELFTEST if probe else 0
        body = struct.pack("<IIQI16sQ", flags, vcpus, 32 << 20, 1, b"v2", 0) + string(b"console=ttyS0")
        body += struct.pack("<16sIIII", probe, 1, 0, 0, 0)  # a kernel; no disks, networks, shared directories
        self.send(CONFIGURE, body, [fd])
        os.close(fd)

    def send(self, kind, body=b"", fds=()):
        head = struct.pack("<IHHI", MAGIC, VERSION, kind, 7)
        self.sock.sendmsg([head + body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def receive(self):
        """(type, body), or (None, b"") when the monitor is gone."""
        p = self.sock.recv(65536)
        if not p:
            return None, b""
        magic, version, kind, _ = struct.unpack_from("<IHHI", p)
        assert (magic, version) == (MAGIC, VERSION)
        return kind, p[12:]

    def receive_ended(self):
        """(reason, text) of the next ENDED; other packets are passed over."""
        while True:
            kind, body = self.receive()
            if kind is None:
                return None, ""
            if kind == ENDED:
                reason, n = struct.unpack_from("<II", body)
                return reason, body[8:8 + n].decode()

    def expect_ok(self):
        kind, body = self.receive()
        assert kind == OK, (kind, body)

    def inner(self):
        """Host pid of the jailed process: the child of the one we started."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            return int(f.read().split()[0])

    def close(self):
        self.sock.close()
        self.process.wait(10)
        self.process.stderr.close()


def status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


@unittest.skipUnless(os.geteuid() == 0, "skipped: looking at a jailed process through /proc needs root")
class FromOutside(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        leak = [os.open("/", os.O_RDONLY) for _ in range(5)]
        cls.m = Monitor(vcpus=4, extra_fds=leak)
        for fd in leak:
            os.close(fd)
        cls.m.expect_ok()
        cls.m.send(START)
        cls.m.expect_ok()
        cls.pid = cls.m.inner()

    @classmethod
    def tearDownClass(cls):
        cls.m.close()

    def tasks(self):
        return os.listdir(f"/proc/{self.pid}/task")

    def test_no_thread_has_a_capability_or_can_gain_one(self):
        self.assertGreaterEqual(len(self.tasks()), 5)
        for pid in [f"{self.pid}/task/{t}" for t in self.tasks()] + [self.m.process.pid]:
            s = status(pid)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(s[name], 16), 0, f"{pid} {name}")
            self.assertEqual(s["NoNewPrivs"], "1")

    def test_every_thread_has_the_filter(self):
        for t in self.tasks():
            self.assertEqual(status(f"{self.pid}/task/{t}")["Seccomp"], "2")

    def test_it_runs_as_nobody_else(self):
        for pid in (self.pid, self.m.process.pid):
            s = status(pid)
            uids = set(s["Uid"].split())
            self.assertEqual(len(uids), 1)
            self.assertNotEqual(uids, {"0"})
            self.assertNotIn("0", s["Gid"].split())
            self.assertEqual(s["Groups"].strip(), "")

    def test_two_monitors_do_not_share_a_user(self):
        other = Monitor()
        other.expect_ok()
        self.assertNotEqual(status(other.inner())["Uid"], status(self.pid)["Uid"])
        other.close()

    def test_all_namespaces_are_its_own(self):
        for ns in NAMESPACES:
            self.assertNotEqual(os.readlink(f"/proc/{self.pid}/ns/{ns}"), OUR_NS[ns], ns)

    def test_it_is_process_one_of_its_pid_namespace(self):
        self.assertEqual(status(self.pid)["NSpid"].split()[-1], "1")

    def test_its_network_has_only_a_loopback_that_is_down(self):
        with open(f"/proc/{self.pid}/net/dev") as f:
            links = [line.split(":")[0].strip() for line in f if ":" in line]
        self.assertEqual(links, ["lo"])
        with open(f"/proc/{self.pid}/net/route") as f:
            self.assertLessEqual(len(f.readlines()), 1)

    def test_its_root_is_empty_and_read_only(self):
        root = f"/proc/{self.pid}/root"
        self.assertEqual(os.listdir(root), [])
        with self.assertRaises(OSError):
            os.mkdir(root + "/x")
        with open(f"/proc/{self.pid}/mountinfo") as f:
            mounts = f.read().splitlines()
        self.assertEqual(len(mounts), 1)
        self.assertIn(" tmpfs ", mounts[0])
        self.assertIn("ro,nosuid,nodev,noexec", mounts[0])

    def test_it_holds_few_descriptors_and_no_file_by_name(self):
        fds = {fd: os.readlink(f"/proc/{self.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{self.pid}/fd")}
        self.assertLessEqual(len(fds), 16, fds)
        for fd, to in fds.items():
            self.assertTrue(to == "/dev/null" or not to.startswith("/") or to.startswith("/memfd:"), (fd, to))
        outer = os.listdir(f"/proc/{self.m.process.pid}/fd")
        self.assertLessEqual(len(outer), 1, outer)

    def test_limits(self):
        with open(f"/proc/{self.pid}/limits") as f:
            text = f.read()
        limits = {line[:25].strip(): line[25:].split()[:2] for line in text.splitlines()[1:]}
        self.assertEqual(limits["Max core file size"], ["0", "0"])
        self.assertEqual(limits["Max processes"], ["0", "0"])
        self.assertLessEqual(int(limits["Max open files"][1]), 1100)
        self.assertNotEqual(limits["Max file size"][1], "unlimited")

    def test_it_ends_with_whoever_stands_for_it(self):
        m = Monitor(program=b"s")
        m.expect_ok()
        m.send(START)
        m.expect_ok()
        inner = m.inner()
        m.process.kill()
        self.assertEqual(m.receive_ended()[0], None)
        for _ in range(100):
            if not os.path.exists(f"/proc/{inner}"):
                break
            time.sleep(0.02)
        self.assertFalse(os.path.exists(f"/proc/{inner}"))
        m.close()

    def test_the_signal_that_ends_it_is_passed_on(self):
        m = Monitor(program=b"c")  # a wild pointer on a vCPU's thread
        m.expect_ok()
        m.send(START)
        m.receive_ended()
        self.assertEqual(m.process.wait(10), -signal.SIGSEGV)
        m.close()


class FromInside(unittest.TestCase):
    PROBES = {b"open": "openat", b"socket": "socket", b"execve": "execve", b"ptrace": "ptrace", b"fork": "clone",
              b"mmap-exec": "mmap", b"mprotect-exec": "mprotect", b"ioctl": "ioctl", b"kill": "kill"}

    def check(self, m, name):
        reason, text = m.receive_ended()
        self.assertEqual(reason, END_JAIL, (name, text))
        self.assertIn(f"called {name}(2), which its jail forbids", text)
        self.assertEqual(m.process.wait(10), 1)
        m.close()

    def test_a_forbidden_call_is_fatal_and_named(self):
        for probe, name in self.PROBES.items():
            with self.subTest(probe=probe):
                m = Monitor(probe=probe)
                m.expect_ok()
                m.send(START)
                self.check(m, name)

    def test_it_is_on_a_vcpu_thread_too(self):
        for number, name in ((41, "socket"), (57, "fork"), (59, "execve"), (101, "ptrace"), (165, "mount"), (272, "unshare"),
                             (321, "bpf"), (323, "userfaultfd"), (425, "io_uring_setup"), (435, "clone3"), (304, "open_by_handle_at"),
                             (308, "setns"), (298, "perf_event_open"), (310, "process_vm_readv"), (434, "pidfd_open"),
                             (105, "setuid"), (160, "setrlimit"), (157, "prctl"), (2, "open"), (87, "unlink"), (317, "seccomp")):
            with self.subTest(name=name):
                m = Monitor(program=b"k" + struct.pack("<H", number) + b"h", vcpus=2)
                m.expect_ok()
                m.send(START)
                self.check(m, name)

    def test_an_unknown_probe_is_refused(self):
        m = Monitor(probe=b"nonsense")
        m.expect_ok()
        m.send(START)
        self.assertEqual(m.receive()[0], ERROR)
        m.close()


class AsAnOrdinaryUser(unittest.TestCase):
    @unittest.skipUnless(os.geteuid() == 0, "skipped: needs root to become another user")
    def test_it_works_or_says_what_is_missing(self):
        def become():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        m = Monitor(preexec=become)
        kind, body = m.receive()
        if kind == ERROR:
            self.assertIn(b"namespace", body)
            m.close()
            self.skipTest("skipped: this host forbids ordinary users user namespaces: " + body[8:].decode())
        self.assertEqual(kind, OK)
        m.send(START)
        m.expect_ok()
        pid = m.inner()
        s = status(pid)
        self.assertEqual((s["CapEff"], s["CapBnd"], s["Seccomp"]), ("0" * 16, "0" * 16, "2"))
        for ns in NAMESPACES:
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{ns}"), OUR_NS[ns], ns)
        self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
        m.close()

    def setUp(self):
        if subprocess.run(["unshare", "-Ur", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("skipped: this host lets nobody make user namespaces")

    # Sets the limit of a user namespace made for the test, not the host's.
    NO_USER_NS = ["unshare", "-Ur", "--", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', "sh"]

    def test_root_does_without_user_namespaces_where_there_are_none(self):
        m = Monitor(prefix=self.NO_USER_NS)
        kind, body = m.receive()
        self.assertEqual(kind, OK, body)
        m.send(START)
        m.expect_ok()
        if os.geteuid() == 0:
            pid = m.inner()
            self.assertEqual(status(pid)["CapBnd"], "0" * 16)
            self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
        m.close()

    def test_a_user_without_user_namespaces_gets_a_sentence(self):
        m = Monitor(prefix=self.NO_USER_NS + ["setpriv", "--inh-caps=-all", "--bounding-set=-all"])
        kind, body = m.receive()
        self.assertEqual(kind, ERROR)
        self.assertIn(b"limit on user namespaces is reached or is 0 (sysctl user.max_user_namespaces)", body)
        self.assertEqual(m.process.wait(10), 2)
        m.close()


if __name__ == "__main__":
    MONITOR = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
