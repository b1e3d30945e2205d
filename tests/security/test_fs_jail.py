#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The confinement of caisson-fs, seen from outside, and what a guest's requests can reach through it.

    test_fs_jail.py CAISSON_FS
"""
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SERVER = None
NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup")
LOOKUP, FORGET, GETATTR, READLINK, SYMLINK, MKNOD, OPEN, READ, CREATE, INIT = 1, 2, 3, 5, 6, 8, 14, 15, 35, 26
KEPT = sum(1 << c for c in (0, 1, 2, 3, 4, 6, 7))  # CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SETGID SETUID
FSETID = 1 << 4


class Server:
    def __init__(self, directory, *args, uid=None):
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self.sock, self.unique = ours, 0
        s, d = os.dup(theirs.fileno()), os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        theirs.close()

        def child():
            a, b = os.dup2(s, 100), os.dup2(d, 101)
            os.dup2(a, 3)
            os.dup2(b, 4)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)

        self.process = subprocess.Popen([SERVER, *args], preexec_fn=child, close_fds=False, stderr=subprocess.PIPE)
        os.close(s)
        os.close(d)
        error, body = self.ask(INIT, 0, struct.pack("<IIII", 7, 38, 131072, 0xFFFFFFFF))
        if error:
            raise AssertionError("INIT: error %d" % error)

    def ask(self, opcode, node, body=b"", uid=0, gid=0):
        self.unique += 2
        head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self.unique, node, uid, gid, 1, 0, 0)
        self.sock.sendall(head + body)
        return self.reply()

    def reply(self):
        head = self.receive(16)
        length, error, unique = struct.unpack("<IiQ", head)
        assert unique == self.unique
        return -error, self.receive(length - 16)

    def receive(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise AssertionError("the server has gone: " + self.process.stderr.read().decode())
            data += part
        return data

    def look_up(self, node, name):
        error, body = self.ask(LOOKUP, node, name.encode() + b"\0")
        return -error if error else struct.unpack_from("<Q", body)[0]

    def create(self, name, uid=0, gid=0, mode=0o644):
        return self.ask(CREATE, 1, struct.pack("<IIII", os.O_RDWR, mode, 0, 0) + name.encode() + b"\0", uid, gid)

    def proc(self, name):
        with open("/proc/%d/%s" % (self.process.pid, name)) as f:
            return f.read()

    def status(self, key):
        return next(line.split(None, 1)[1] for line in self.proc("status").splitlines() if line.startswith(key + ":"))

    def end(self):
        self.sock.close()
        code = self.process.wait(10)
        self.process.stderr.close()
        return code


class FsJail(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="caisson-fs-")
        os.chmod(self.top, 0o755)
        self.dir = os.path.join(self.top, "shared")
        os.mkdir(self.dir)
        with open(os.path.join(self.top, "secret"), "w") as f:
            f.write("secret")
        with open(os.path.join(self.dir, "file"), "w") as f:
            f.write("text")

    def tearDown(self):
        shutil.rmtree(self.top)

    def test_the_directory_is_all_there_is(self):
        s = Server(self.dir)
        if os.geteuid() == 0:
            self.assertEqual(os.listdir("/proc/%d/root" % s.process.pid), ["file"])
            mounts = [line.split() for line in s.proc("mountinfo").splitlines()]
            self.assertEqual([m[4] for m in mounts], ["/"])
            for option in ("nosuid", "nodev", "noexec"):
                self.assertIn(option, mounts[0][5])
            for ns in NAMESPACES:
                self.assertNotEqual(os.readlink("/proc/%d/ns/%s" % (s.process.pid, ns)), os.readlink("/proc/self/ns/" + ns), ns)
            fds = {os.readlink("/proc/%d/fd/%s" % (s.process.pid, fd)) for fd in os.listdir("/proc/%d/fd" % s.process.pid)}
            for fd in fds:
                self.assertTrue(fd.startswith(("socket:", "pipe:")) or fd in ("/dev/null", "/null", "/") or fd.endswith("/fd"), fd)
        self.assertEqual(s.end(), 0)

    def test_privileges_are_gone(self):
        s = Server(self.dir)
        time.sleep(0.05)
        effective, permitted, bounding = (int(s.status("Cap" + k), 16) for k in ("Eff", "Prm", "Bnd"))
        self.assertEqual(effective & ~KEPT | permitted & ~KEPT | bounding & ~KEPT, 0)
        self.assertEqual(effective & FSETID, 0)
        self.assertEqual(int(s.status("CapInh"), 16) | int(s.status("CapAmb"), 16), 0)
        self.assertEqual(s.status("NoNewPrivs"), "1")
        self.assertEqual(s.status("Seccomp"), "2")
        s.end()

    def test_the_outside_cannot_be_named(self):
        os.symlink("../secret", os.path.join(self.dir, "out"))
        os.symlink("..", os.path.join(self.dir, "up"))
        s = Server(self.dir)
        for name in ("..", ".", "/", "../secret", "/etc/passwd", ""):
            self.assertEqual(s.look_up(1, name), -errno.EINVAL, name)
        self.assertEqual(s.look_up(s.look_up(1, "up"), "secret"), -errno.ENOTDIR)
        self.assertEqual(s.ask(OPEN, s.look_up(1, "out"), struct.pack("<II", os.O_RDWR, 0))[0], errno.ELOOP)
        self.assertEqual(s.ask(MKNOD, 1, struct.pack("<IIII", 0o20666, 0x103, 0, 0) + b"null\0")[0], errno.EPERM)
        s.end()
        with open(os.path.join(self.top, "secret")) as f:
            self.assertEqual(f.read(), "secret")

    @unittest.skipIf(os.geteuid() != 0, "only root can give files to others")
    def test_root_creates_as_the_user_that_asks(self):
        s = Server(self.dir)
        self.assertEqual(s.create("theirs", 1000, 1001, 0o4755)[0], 0)
        self.assertEqual(s.create("ours")[0], 0)
        st = os.stat(os.path.join(self.dir, "theirs"))
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777), (1000, 1001, 0o4755))
        self.assertEqual(os.stat(os.path.join(self.dir, "ours")).st_uid, 0)
        s.end()

    @unittest.skipIf(os.geteuid() != 0, "needs two users")
    def test_an_ordinary_user_stays_one(self):
        os.chown(self.dir, 12345, 12345)
        s = Server(self.dir, uid=12345)
        self.assertEqual(s.create("theirs", 1000, 1001)[0], 0)
        self.assertEqual(os.stat(os.path.join(self.dir, "theirs")).st_uid, 12345)
        # root's own file is nobody's in there, and not to be written
        error, body = s.ask(LOOKUP, 1, b"file\0")
        self.assertEqual(struct.unpack_from("<I", body, 40 + 68)[0], 65534)
        self.assertEqual(s.ask(OPEN, struct.unpack_from("<Q", body)[0], struct.pack("<II", os.O_RDWR, 0))[0], errno.EACCES)
        s.end()

    def test_read_only_is_enforced_by_the_mount_too(self):
        s = Server(self.dir, "--readonly")
        self.assertEqual(s.create("new")[0], errno.EROFS)
        if os.geteuid() == 0:
            self.assertIn("ro", s.proc("mountinfo").split()[5].split(","))
        s.end()
        self.assertEqual(os.listdir(self.dir), ["file"])

    def test_nonsense_ends_the_server(self):
        s = Server(self.dir)
        s.sock.sendall(struct.pack("<IIQQIIIHH", 8, LOOKUP, 2, 1, 0, 0, 1, 0, 0))
        self.assertEqual(s.process.wait(10), 1)
        s.end()

    def test_a_closed_socket_ends_the_server(self):
        s = Server(self.dir)
        s.sock.sendall(struct.pack("<IIQQ", 100, LOOKUP, 2, 1))  # half a request
        self.assertEqual(s.end(), 0)


if __name__ == "__main__":
    SERVER = sys.argv.pop(1)
    try:
        subprocess.run(["unshare", "--user", "true"], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        print("skipped: this host makes no user namespaces")
        sys.exit(77)
    unittest.main()
