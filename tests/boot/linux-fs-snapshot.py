#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest with files open in a shared directory is saved, and restored twice with new servers: its programs go on.

    linux-fs-snapshot.py CAISSON_VMM CAISSON_FS VMLINUX
"""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../bench"))
import control  # noqa: E402

SCRIPT = """#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t virtiofs data /mnt
cd /mnt/dir
exec 3>>log 4<numbers 5<>gone
rm gone
n=0
while :; do
	read line <&4
	n=$((n + 1))
	[ "$line" = $n ] || echo "guest: read '$line' for $n"
	echo $n >&3 || echo "guest: write failed at $n"
	if [ -e stop ]; then
		echo x >&5 2>/dev/null && echo "guest: a deleted file came back"
		[ "$(cat ../top)" = "$(cat where)" ] || echo "guest: top is $(cat ../top)"
		echo "guest: $(pwd) $(wc -l <log) of $n"
		poweroff -f
	fi
	sleep 0.02
done
"""


class Guest:
    def __init__(self, vmm, fs, directory, fds, cmdline="", vcpus=0, mem=0):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine, servers = socket.socketpair()
        d = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.server = self.spawn([fs], servers.fileno(), d)
        os.close(d)
        servers.close()
        self.monitor = self.spawn([vmm], theirs.fileno())
        theirs.close()
        self.out, console = os.pipe()
        self.client = control.Client(ours)
        ours.settimeout(60)
        fds = dict(fds)
        fds[control.FD_CONSOLE] = console
        model = "v2" if vcpus else ""
        self.client.configure(vcpus, mem, control.ACCEL_SOFT, model, cmdline, fds, shares=[(mine.fileno(), "data")])
        mine.close()
        os.close(console)
        self.client.start()

    @staticmethod
    def spawn(argv, *fds):
        high = [os.dup(fd) for fd in fds]

        def child():
            moved = [os.dup2(fd, 200 + i) for i, fd in enumerate(high)]
            for i, fd in enumerate(moved):
                os.dup2(fd, 3 + i)

        p = subprocess.Popen(argv, preexec_fn=child, close_fds=False)
        for fd in high:
            os.close(fd)
        return p

    def output(self):
        """All that the guest still says, until it ends."""
        text = b""
        while part := os.read(self.out, 65536):
            text += part
        self.monitor.wait(20)
        assert self.server.wait(20) == 0
        return text.decode(errors="replace").replace("\r", "")


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def lines(path):
    try:
        with open(path) as f:
            return f.read().split()
    except FileNotFoundError:
        return []


def restore(vmm, fs, top, shared, name):
    files = {k: os.open(os.path.join(top, f), os.O_RDONLY) for k, f in ((control.FD_STATE, "state"), (control.FD_MEMORY, "memory"))}
    guest = Guest(vmm, fs, shared, files)
    for fd in files.values():
        os.close(fd)
    log = os.path.join(shared, "dir/log")
    before = len(lines(log))
    wait_for(lambda: len(lines(log)) > before + 20)
    for path, text in (("top", name), ("dir/where", name), ("dir/stop", "")):
        with open(os.path.join(shared, path), "w") as f:
            f.write(text)
    text = guest.output()
    os.unlink(os.path.join(shared, "dir/stop"))
    said = [line for line in text.splitlines() if line.startswith("guest:")]
    assert len(said) == 1 and said[0].startswith("guest: /mnt/dir "), text
    return int(said[0].split()[-1])


def main():
    vmm, fs, kernel = sys.argv[1:4]
    if not os.path.exists(kernel) or not shutil.which("busybox"):
        print("skipped: there is no guest kernel (%s), or no busybox" % kernel)
        return 77
    top = tempfile.mkdtemp()
    try:
        shared = os.path.join(top, "shared")
        os.makedirs(os.path.join(shared, "dir"))
        with open(os.path.join(shared, "dir/numbers"), "w") as f:
            f.write("".join("%d\n" % (i + 1) for i in range(100000)))
        with open(os.path.join(shared, "top"), "w") as f:
            f.write("first")
        with open(os.path.join(top, "init"), "w") as f:
            f.write(SCRIPT)
        subprocess.run([sys.executable, os.path.join(HERE, "busybox_initramfs.py"), shutil.which("busybox"), "init", "initrd"], cwd=top, check=True)
        with open(os.path.join(HERE, "../../kernel/cmdline")) as f:
            cmdline = f.read().strip()
        files = {control.FD_KERNEL: os.open(kernel, os.O_RDONLY), control.FD_INITRD: os.open(os.path.join(top, "initrd"), os.O_RDONLY)}
        guest = Guest(vmm, fs, shared, files, cmdline, 2, 128 << 20)
        log = os.path.join(shared, "dir/log")
        wait_for(lambda: len(lines(log)) > 20)
        out = [os.open(os.path.join(top, f), os.O_RDWR | os.O_CREAT, 0o600) for f in ("state", "memory")]
        guest.client.snapshot(*out)
        at = len(lines(log))
        wait_for(lambda: len(lines(log)) > at + 10)  # the original goes on
        guest.client.close()
        said = guest.output()
        assert "guest:" not in said, said
        for name in ("second", "third"):
            with open(log, "w"):
                pass  # both copies go on from the same number, in the same file
            n = restore(vmm, fs, top, shared, name)
            got = [int(x) for x in lines(log)]
            assert got == list(range(n - len(got) + 1, n + 1)) and len(got) > 20, (n, got[:3], got[-3:])
            assert abs(got[0] - 1 - at) <= 12, (got[0], at)
    finally:
        shutil.rmtree(top)
    print("ok")
    return 0


sys.exit(main())
