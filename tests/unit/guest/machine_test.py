#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent as PID 1 of a real guest on our own monitor: what SETUP makes of disks, mounts, interfaces and files of /etc, out of memory,
and a power-off that leaves the writable layer's disk clean.

usage: machine_test.py KERNEL INITRAMFS CMDLINE VMM-RUN VMM CAISSON-FS BUSYBOX-EROFS
"""
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agent_client import (BIND, BUILTIN, DETACH, DETACH_STREAM, DETACHED, EXIT, STDIN, STDIN_CLOSE, WINDOW, WITH_STDIN, OVERLAY_DISK, OVERLAY_TMPFS, READONLY, TMPFS, VIRTIOFS, AgentError, Session, wait_for)

kernel, initramfs, cmdline, vmm_run, vmm, caisson_fs, busybox = sys.argv[1:8]
READONLY_ROOT = 1


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


class Guest:
    def __init__(self, directory, disks, nets=0, shares=()):
        self.vsock = directory + "/vsock"
        self.console = directory + "/console"
        with open(cmdline, encoding="ascii") as f:
            line = f.read().strip()
        command = [vmm_run, "--vmm", vmm, "-m", "192", "--accel", "soft", "--kernel", kernel, "--initrd", initramfs, "--vsock", self.vsock,
                   "--cmdline", line, "--timeout", "100"]
        for disk in disks:
            command += ["--disk", disk]
        for share in shares:
            command += ["--fs", share]
        self.nets = []
        for i in range(nets):
            listener = socket.socket(socket.AF_UNIX)
            if os.path.exists(f"{directory}/net{i}"):
                os.unlink(f"{directory}/net{i}")
            listener.bind(f"{directory}/net{i}")
            listener.listen()
            self.nets.append(listener)
            command += ["--net", f"stream:{directory}/net{i}"]
        if os.path.exists(self.vsock):
            os.unlink(self.vsock)
        with open(self.console, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, CAISSON_FS=caisson_fs))
        wait_for(self.vsock)
        for _ in range(500): # it is bound a moment before it listens
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.vsock)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)

    def sh(self, script, **options):
        return Session(self.vsock).run(["sh", "-c", script], **options)

    def output(self, script):
        out, err, status, signal, _ = self.sh(script)
        assert status == 0 and signal == 0, (script, out, err, status, signal)
        return out.decode()

    def off(self):
        Session(self.vsock).power_off()
        assert self.process.wait(timeout=30) == 0
        for listener in self.nets:
            listener.close()


def expect(text, *parts):
    for part in parts:
        assert part in text, f"no {part!r} in:\n{text}"


def writable_layer_on_a_disk(directory):
    disk = directory + "/upper.img"
    with open(disk, "wb") as f:
        f.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk], check=True)
    for start in range(2):
        guest = Guest(directory, [busybox + ":ro", disk])
        Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_DISK, upper_dev="/dev/vdb", upper_fstype="ext4",
                                   resolv="nameserver 10.1.2.3\n", hosts="127.0.0.1 localhost\n10.1.1.1 peer\n")
        expect(guest.output("cat /etc/resolv.conf /etc/hosts /etc/hostname; stat -c '%a %u' /; awk '$2 == \"/\"' /proc/mounts"),
               "nameserver 10.1.2.3\n", "10.1.1.1 peer\n", "box\n", "755 0\n" if not start else "711 0\n", "overlay / overlay rw")
        assert guest.output("echo here >>/root/kept; rm -f /bin/vi; ln -s peer /root/link; chmod 711 /; cat /root/kept") == "here\n" * (start + 1)
        # One that holds a deleted file open and ignores SIGTERM must not keep the disk from being left clean.
        guest.output("dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; rm /big")
        guest.sh("(trap '' TERM; exec 5>/held; rm /held; while :; do echo x >&5; sleep 0.1; done) >/dev/null 2>&1 &")
        guest.off()
        head = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
        assert "needs_recovery" not in head, head
        assert "Filesystem state:         clean" in head, head
        subprocess.run(["e2fsck", "-fn", disk], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # What was freed is the host's again: 40 MB were written, twice.
    assert os.stat(disk).st_blocks * 512 < 20 << 20, os.stat(disk).st_blocks
    listing = subprocess.run(["debugfs", "-R", "ls -p /upper/root", disk], capture_output=True, text=True, check=True).stdout
    expect(listing, "/kept/", "/link/")


def mounts_network_and_a_read_only_root(directory):
    guest = Guest(directory, [busybox + ":ro"], nets=2)
    session = Session(guest.vsock)
    macs = ["02:00:00:00:00:77", "02:00:00:00:00:78"]
    session.setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS, flags=READONLY_ROOT, resolv="nameserver fd09::1\n",
                  ifaces=[(macs[0], 1400, ["10.9.0.2/24", "fd09::2/64"], "10.9.0.1", "fe80::1"), (macs[1], 0, ["10.10.0.2/32"], "10.10.0.1", "")],
                  mounts=[(TMPFS, 0, "", "/var/deep/er", "", "size=1m,mode=700"), (BIND, 1, "/bin", "/srv/bin", "", ""),
                          (BIND, 0, "/etc/resolv.conf", "/srv/file", "", "noexec")])
    mounts = guest.output("cat /proc/mounts")
    expect(mounts, "overlay / overlay ro,", "tmpfs /var/deep/er tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700",
           "overlay /srv/bin overlay ro,", "overlay /srv/file overlay rw,noexec,")
    expect(guest.output("touch /x 2>/dev/null || echo refused; touch /var/deep/er/x && echo written; /srv/bin/echo bound; cat /srv/file"),
           "refused", "written", "bound", "nameserver fd09::1")
    network = guest.output("ip addr; ip route; ip -6 route; ls /sys/class/net | tr '\\n' ' '; ls /dev/.cai* 2>/dev/null || true")
    expect(network, "eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400", macs[0], macs[1], "inet 10.9.0.2/24 brd 10.9.0.255",
           "inet6 fd09::2/64", "inet 10.10.0.2/32", "default via 10.9.0.1 dev eth0 onlink", "default via 10.10.0.1 dev eth1  metric 1 onlink",
           "default via fe80::1 dev eth0", "eth0 eth1 lo")
    assert "tentative" not in network and "dummy" not in network and "/dev/.cai" not in network, network
    out, _, status, signal, flags = guest.sh("exit 3")
    assert (status, signal, flags) == (3, 0, 0)
    out, err, status, _, _ = Session(guest.vsock).run(["stat", "/etc/hostname"], BUILTIN)
    assert status == 0 and out.startswith(b'{"type":"file","mode":420,"size":4,'), (out, err)
    become_another_machine(guest)
    guest.off()


def become_another_machine(guest):
    """What a copy is told: the program goes on behind another stream, in a machine with another name and network."""
    program = Session(guest.vsock)
    pid = program.start(["sh", "-c", "cat; hostname; exit 5"], WITH_STDIN)
    for _ in range(4):
        program.send(STDIN, b"a" * (WINDOW // 4))
    program.send(DETACH_STREAM)
    before, body = program.read_until(DETACHED)
    assert int.from_bytes(body, "little") == pid
    clock = int(guest.output("date +%s; ip addr add 10.9.7.7/24 dev eth0").split()[0])
    again = Session(guest.vsock)
    again.setup(hostname="another", realtime_ns=(clock + 100000) * 10**9, resolv="nameserver 10.3.3.3\n",
                ifaces=[("02:00:00:00:01:77", 1300, ["10.19.0.2/24"], "10.19.0.1", ""), ("02:00:00:00:00:78", 0, ["fd19::2/64"], "", "fe80::9")])
    window, flags = again.attach(pid)
    assert 0 < window <= WINDOW and flags == 1, (window, flags)
    again.send(STDIN, b"b" * 65000)
    again.send(STDIN_CLOSE)
    after, body = again.read_until(EXIT)
    assert before + after == b"a" * WINDOW + b"b" * 65000 + b"another\n", (len(before), len(after), after[-20:])
    assert body[:8] == bytes((5, 0, 0, 0, 0, 0, 0, 0)), body
    said = guest.output("ip addr; ip route; ip -6 route; cat /etc/resolv.conf; hostname; date +%s; grep -c ' /etc/' /proc/mounts")
    expect(said, "eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1300", "02:00:00:00:01:77", "inet 10.19.0.2/24 brd 10.19.0.255", "inet6 fd19::2/64",
           "default via 10.19.0.1 dev eth0 onlink", "default via fe80::9 dev eth1", "nameserver 10.3.3.3\nanother\n")
    for gone in ("10.9.", "10.10.", "fd09::", "fe80::1 ", "00:00:77"):
        assert gone not in said, (gone, said)
    assert 100000 <= int(said.split()[-2]) - clock < 100100, said
    assert said.split()[-1] == "2", said  # resolv.conf and hostname, over a root that is read-only by now


def shared_directories(directory):
    share = directory + "/share"
    os.makedirs(share + "/sub/deep")
    for name, text in (("file", "of the host\n"), ("sub/one", "one\n")):
        with open(f"{share}/{name}", "w", encoding="ascii") as f:
            f.write(text)
    os.symlink("/etc/passwd", share + "/out")
    guest = Guest(directory, [busybox + ":ro"], shares=[f"all={share}", f"part={share}", f"file={share}", f"fixed={share}"])
    Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS,
                               mounts=[(VIRTIOFS, 0, "all", "/srv/all", "", ""), (VIRTIOFS, 0, "part", "/srv/part", "sub", "noexec"),
                                       (VIRTIOFS, 1, "file", "/etc/only", "file", ""), (VIRTIOFS, 1, "fixed", "/srv/fixed", "", "")])
    expect(guest.output("cat /srv/all/file /srv/part/one /etc/only; ls /srv/part; ls -d /dev/.cai* 2>/dev/null; grep virtiofs /proc/mounts"),
           "of the host\none\nof the host\n", "deep\none\n", "all /srv/all virtiofs rw,nodev,relatime", "part /srv/part virtiofs rw,nodev,noexec",
           "file /etc/only virtiofs ro,nodev", "fixed /srv/fixed virtiofs ro,nodev")
    guest.output("echo guest >/srv/part/deep/new; for f in /etc/only /srv/fixed/file; do (echo x >$f) 2>/dev/null && exit 1; done; exit 0")
    with open(share + "/sub/deep/new", encoding="ascii") as f:
        assert f.read() == "guest\n"
    with open(share + "/file", encoding="ascii") as f:
        assert f.read() == "of the host\n"
    guest.off()
    # A part that is a link out of the share is not followed.
    guest = Guest(directory, [busybox + ":ro"], shares=[f"all={share}"])
    try:
        Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS, mounts=[(VIRTIOFS, 0, "all", "/srv/x", "out", "")])
        raise AssertionError("a link out of the share was mounted")
    except AgentError as e:
        assert 'the shared directory "all" has no out' in e.text, e.text
    guest.off()


def out_of_memory(directory):
    guest = Guest(directory, [busybox + ":ro"])
    Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS, mounts=[(TMPFS, 0, "", "/fill", "", "size=1g")])
    _, _, status, signal, flags = guest.sh("exec dd if=/dev/zero of=/fill/x bs=1M")
    assert (signal, flags) == (9, 1), (status, signal, flags)
    # The agent lives, and what starts later is not blamed for it.
    guest.output("rm /fill/x")
    assert guest.sh("exit 1")[2:] == (1, 0, 0)
    guest.off()


def functions_of_the_agent(directory):
    guest = Guest(directory, [busybox + ":ro"])
    Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS)

    def builtin(*argv, stdin=None):
        return Session(guest.vsock).run(list(argv), BUILTIN, stdin=stdin)

    # A tree in, and the same out.
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, kind, data=b"", **fields):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(data), 1234567890
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
        big = os.urandom(3 << 20)
        add("tree", tarfile.DIRTYPE, mode=0o710, uid=3, gid=4)
        add("tree/" + "long" * 60, tarfile.REGTYPE, b"x" * 1000, mode=0o4755, uid=5000000, gid=7)
        add("tree/big", tarfile.REGTYPE, big, mode=0o600)
        add("tree/hard", tarfile.LNKTYPE, linkname="tree/big", mode=0o600)
        add("tree/soft", tarfile.SYMTYPE, linkname="../../nowhere")
        add("tree/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("tree/pipe", tarfile.FIFOTYPE, mode=0o622)
    out, err, status, _, _ = builtin("tar-in", "/srv", stdin=archive.getvalue())
    assert (out, err, status) == (b"", b"", 0), (out, err, status)
    out, err, status, _, _ = builtin("tar-out", "/srv/tree")
    assert (err, status) == (b"", 0), (err, status)
    with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as a, tarfile.open(fileobj=io.BytesIO(out)) as b:
        want, got = ({m.name: (m.type, m.mode, m.uid, m.gid, m.size, m.mtime, m.linkname, m.devmajor, m.devminor) for m in t} for t in (a, b))
        # Which of two names is the file and which the link is the directory's order.
        first, second = ("tree/big", "tree/hard") if got["tree/big"][0] == tarfile.REGTYPE else ("tree/hard", "tree/big")
        assert b.extractfile(first).read() == big and got[second][6] == first
        for name in want:
            if name not in (first, second) and want[name][0] != tarfile.SYMTYPE:
                assert got[name] == want[name], (name, got[name], want[name])
        assert set(want) == set(got) and got["tree/soft"][6] == "../../nowhere"
    out, err, status, _, _ = builtin("tar-in", "/srv", stdin=b"no archive" * 200)
    assert status == 1 and err.count(b"\n") == 1 and b"damaged" in err, err
    # All of the root, without what the kernel shows in it.
    out, err, status, _, _ = builtin("tar-out", "/")
    assert status == 0, err
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        names = tar.getnames()
        assert "./bin/busybox" in names and "./proc" in names and "./dev" in names, names[:50]
        assert not [n for n in names if n.startswith(("./proc/", "./sys/", "./dev/"))]

    guest.sh("sleep 1000 & exec -a 'odd\"\\\n\xff' sleep 1000 &", env=[])
    Session(guest.vsock).run(["sleep", "1001"], DETACH, user="1:1")
    out, err, status, _, _ = builtin("ps")
    processes = {p["cmd"]: p for p in json.loads(out)}
    assert status == 0 and processes["sleep 1001"]["uid"] == 1 and processes["sleep 1001"]["state"] == "S", out
    assert processes["sleep 1000"]["user"] == "root" and processes["sleep 1000"]["rss"] > 4096, out
    assert not [p for p in processes if p.startswith("[") or "caisson" in p or p == "/init"], out
    out, err, status, _, _ = builtin("stats")
    stats = json.loads(out)
    assert 100e6 < stats["memory"]["total"] < 192 << 20 and stats["memory"]["available"] <= stats["memory"]["total"], out
    assert stats["cpu"]["online"] == 1 and stats["cpu"]["usage_ns"] > 0 and "lo" in stats["net"] and stats["uptime_ms"] > 0, out
    assert stats["rootfs"]["used"] + stats["rootfs"]["free"] <= stats["rootfs"]["size"] and stats["memory"]["oom_kills"] == 0, out
    guest.off()


def prepared_before_setup(directory):
    disk = directory + "/upper.img"
    with open(disk, "wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    disks = [busybox + ":ro", disk, busybox + ":ro"]
    plain = Guest(directory, disks, nets=1)
    Session(plain.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS)
    look = "sort /proc/mounts; stat -c '%n %a %u %g' / /* /etc/*; cat /etc/*; ls /dev /dev/shm /dev/mqueue; ls -d /sys/fs/cgroup/*/; ip link show lo"
    expected = plain.output(look)
    plain.off()
    litter = ("set -e; echo $WORD; test $$ != 1; hostname wrong; echo x >/x; echo x >/etc/passwd; echo x >/dev/shm/x; echo x >/tmp/x; rm /bin/vi\n"
              "mkdir /m; mount -t tmpfs none /m; touch /m/x; sleep 1000 & (sleep 1000; :) & ip link set lo down\n"
              "(echo x >/dev/x) 2>/dev/null && exit 5; mkdir /sys/fs/cgroup/x 2>/dev/null && exit 6; ! ip link show eth0 2>/dev/null\n")
    memory, upper = ["--overlay"], ["--upper", "/dev/vdb", "ext4"]
    for extra, setup in ((memory, dict(mode=OVERLAY_TMPFS)), ([], dict(mode=OVERLAY_TMPFS)), (memory, dict(mode=OVERLAY_DISK, upper_dev="/dev/vdb")),
                         (memory, dict(mode=READONLY)), (memory, dict(mode=OVERLAY_TMPFS, root_dev="/dev/vdc")),
                         ([], dict(mode=OVERLAY_TMPFS, fstype="erofs", flags=READONLY_ROOT)), (upper, dict(mode=OVERLAY_TMPFS)),
                         (upper, dict(mode=OVERLAY_DISK, upper_dev="/dev/vdb")), (upper, dict(mode=OVERLAY_DISK, upper_dev="/dev/vdb", flags=READONLY_ROOT)),
                         (memory, dict(root_dev="", mode=0))):
        guest = Guest(directory, disks, nets=1)
        words = ["prepare", "/dev/vda", "erofs"] + extra
        out, err, status, _, _ = Session(guest.vsock).run(words + ["--", "/bin/sh", "-c", litter], BUILTIN, env=["WORD=warm", "PATH=/bin:/sbin"])
        assert (out, err, status) == (b"warm\n", b"", 0), (out, err, status)
        out, err, status, _, _ = Session(guest.vsock).run(words, BUILTIN)
        assert (out, err, status) == (b"", b"", 0), (out, err, status)
        out, err, status, _, _ = Session(guest.vsock).run(words + ["--", "sh", "-c", "echo no >&2; exit 3"], BUILTIN)
        assert (out, err, status) == (b"", b"no\nthe warm-up ended with 3\nthe warm-up failed\n", 1), (out, err, status)
        out, err, status, _, _ = Session(guest.vsock).run(words + ["--", "/no/such"], BUILTIN)
        assert status == 1 and b"/no/such does not exist" in err, (out, err, status)
        for argv, sentence in ((["prepare", "/dev/vdb", ""], "mounted already"), (["prepare", "/dev/vda", "erofs", "what"], "does not know what")):
            try:
                Session(guest.vsock).run(argv, BUILTIN)
                raise AssertionError(f"{argv} was accepted")
            except AgentError as e:
                assert sentence in e.text, e.text
        Session(guest.vsock).setup(**dict(dict(root_dev="/dev/vda"), **setup))
        if not setup.get("root_dev", "x"): # it stays in the initramfs, where nothing can be run
            out, err, status, _, _ = Session(guest.vsock).run(["stat", "/newroot"], BUILTIN)
            assert status == 0 and b'"dir"' in out, (out, err)
            guest.off()
            continue
        if setup["mode"] == OVERLAY_TMPFS and "flags" not in setup:
            found = guest.output(look)
            assert found == expected, (found, expected)
        left = guest.output("hostname; cat /etc/hostname; ls -d /x /m /dev/shm/x /dev/x /sys/fs/cgroup/x 2>/dev/null; grep ^root: /etc/passwd | cut -c1-5; ls /bin/vi")
        assert left == ("" if setup["mode"] == READONLY else "box\n") + "box\nroot:\n/bin/vi\n", left
        out, _, _, _, _ = Session(guest.vsock).run(["ps"], BUILTIN)
        assert json.loads(out) == [], out
        assert guest.output("(touch /y && echo yes) 2>/dev/null || echo no") == ("no\n" if setup["mode"] == READONLY or "flags" in setup else "yes\n")
        assert guest.output("grep -c ' / ' /proc/mounts") == "1\n"
        guest.off()
        if setup["mode"] == OVERLAY_DISK:
            subprocess.run(["e2fsck", "-fn", disk], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            head = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
            assert "needs_recovery" not in head, head
    # A disk that is no disk, and one that is not there.
    guest = Guest(directory, [busybox + ":ro"])
    for argv, sentence in ((["prepare", "/dev/null", ""], "/dev/null is not a disk"), (["prepare", "/dev/vda", "ext4"], "of type erofs, not ext4"),
                           (["prepare", "/dev/vdx", "erofs"], "/dev/vdx cannot be opened")):
        try:
            Session(guest.vsock).run(argv, BUILTIN)
            raise AssertionError(f"{argv} was accepted")
        except AgentError as e:
            assert sentence in e.text, e.text
    Session(guest.vsock).setup(root_dev="/dev/vda", mode=OVERLAY_TMPFS)
    guest.off()


def what_cannot_be_done_is_said(directory):
    blank = directory + "/blank"
    with open(blank, "wb") as f:
        f.truncate(1 << 20)
    cases = [
        (dict(mode=OVERLAY_DISK, upper_dev="/dev/vdb"), "the disk of the writable layer /dev/vdb holds neither"),
        (dict(mode=OVERLAY_DISK, upper_dev="/etc/passwd"), "is not a device"),
        (dict(mode=OVERLAY_TMPFS, mounts=[(VIRTIOFS, 0, "nosuch", "/data", "", "")]), 'has no shared directory "nosuch"'),
        (dict(mode=OVERLAY_TMPFS, mounts=[(TMPFS, 0, "", "/", "", "")]), "nothing can be mounted on the root directory"),
        (dict(mode=OVERLAY_TMPFS, mounts=[(TMPFS, 0, "", "/t", "", "size=banana")]), 'cannot have the option "size=banana"'),
        (dict(mode=OVERLAY_TMPFS, mounts=[(BIND, 0, "/no/such", "/t", "", "")]), "/no/such cannot be mounted"),
        (dict(mode=OVERLAY_TMPFS, ifaces=[("02:00:00:00:00:09", 0, [], "", "")]), "no network interface for 02:00:00:00:00:09"),
        (dict(mode=READONLY, flags=READONLY_ROOT), None),
    ]
    for setup, sentence in cases:
        guest = Guest(directory, [busybox + ":ro", blank])
        try:
            Session(guest.vsock).setup(root_dev="/dev/vda", **setup)
            assert sentence is None, sentence
        except AgentError as e:
            assert sentence and sentence in e.text, e.text
        guest.off()


def main():
    for what, path in (("guest kernel", kernel), ("root image", busybox)):
        if not os.path.exists(path):
            skip(f"no {what} at {path}")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for program in ("mkfs.ext4", "e2fsck", "dumpe2fs", "debugfs"):
        if not shutil.which(program):
            skip(f"no {program}")
    for test in (writable_layer_on_a_disk, mounts_network_and_a_read_only_root, shared_directories, out_of_memory, functions_of_the_agent, prepared_before_setup, what_cannot_be_done_is_said):
        with tempfile.TemporaryDirectory() as directory:
            try:
                test(directory)
            except BaseException:
                print(f"FAILED: {test.__name__}")
                if os.path.exists(directory + "/console"):
                    print(open(directory + "/console", errors="replace").read())
                raise
        print(f"ok: {test.__name__.replace('_', ' ')}")


if __name__ == "__main__":
    main()
