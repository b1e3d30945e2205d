#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks of sandboxes, tried out in namespaces of the test's own: nothing here touches the machine's network.

    test_net.py NET-SANDBOX LIBEXEC [FILTER]

The world of each test: "outside" (a namespace with web, echo and name servers at 198.51.100.1 and 2001:db8:1::1), the "host" (this process's own
namespace, made for the test, with a link `wan` to the outside), and sandboxes made by net-sandbox. A sandbox's inside is entered
with setns. Exit 77 when the host lacks what is needed.
"""
import ctypes
import errno
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.abspath(__file__)
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
libc = ctypes.CDLL(None, use_errno=True)
WAN4, OUT4 = "198.51.100.2", "198.51.100.1"
WAN6, OUT6 = "2001:db8:1::2", "2001:db8:1::1"
LAN4 = "192.0.2.77"  # another address of the host
HOST_SECRET = "127.0.0.9"


def sh(*words, check=True):
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and p.returncode:
        raise AssertionError(f"{' '.join(words)}: {p.stderr}")
    return p.stdout


def setns(fd):
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


class inside:
    """with inside(fd): this thread is in that namespace."""

    def __init__(self, fd):
        self.fd = fd

    def __enter__(self):
        self.old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        setns(self.fd)

    def __exit__(self, *_):
        setns(self.old)
        os.close(self.old)


def family(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


SERVERS = []  # closed after each test


class Server:
    """Accepts TCP connections and answers datagrams on (addr, port) with a greeting, from the namespace that it is made in."""

    def __init__(self, addr, port, kind="tcp", greeting=b"hello\n", echo=False, handler=None):
        self.s = socket.socket(family(addr), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family(addr) == socket.AF_INET6:
            self.s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.s.bind((addr, port))
        self.port = self.s.getsockname()[1]
        self.peers = []
        self.greeting, self.echo, self.handler = greeting, echo, handler
        if kind == "tcp":
            self.s.listen(64)
        threading.Thread(target=self.tcp if kind == "tcp" else self.udp, daemon=True).start()
        SERVERS.append(self)

    def tcp(self):
        while True:
            try:
                c, peer = self.s.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        try:
            if self.echo:
                while data := c.recv(65536):
                    c.sendall(data)
            else:
                c.sendall(self.greeting)
        except OSError:
            pass
        c.close()

    def udp(self):
        while True:
            try:
                data, peer = self.s.recvfrom(65536)
            except OSError:
                return
            if peer is None:
                return
            self.peers.append(peer[0])
            answer = self.handler(data) if self.handler else data if self.echo else self.greeting
            if answer:
                self.s.sendto(answer, peer)

    def close(self):
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.s.close()


def tcp_get(addr, port, timeout=3):
    """What a server says first; OSError when it cannot be reached."""
    with socket.socket(family(addr), socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect((addr, port))
        data = b""
        while chunk := s.recv(65536):
            data += chunk
        return data


def udp_get(addr, port, timeout=2, data=b"?", bind=None):
    with socket.socket(family(addr), socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        if bind:
            s.bind(bind)
        s.connect((addr, port))
        s.send(data)
        return s.recv(65536)


def unreachable(fn, *args, **kw):
    """True when fn fails as a closed way does; anything received is a breach."""
    try:
        got = fn(*args, **kw)
    except (socket.timeout, TimeoutError):
        return "timeout"
    except OSError as e:
        if e.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EPERM,
                       errno.ECONNRESET, errno.EINVAL, errno.EADDRNOTAVAIL):
            return errno.errorcode[e.errno]
        raise
    raise AssertionError(f"reached {args}: {got!r}")


def wait_until(fn, what, seconds=10):
    end = time.monotonic() + seconds
    while not fn():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Sandbox:
    def __init__(self, world, *words, linger="0", rootless=False):
        env = dict(os.environ, CAISSON_NET_LINGER_MS=linger)
        become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if rootless else []
        self.p = subprocess.Popen([*become, world.driver, "--root", world.root, "--libexec", world.libexec, *words], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        line = self.p.stdout.readline()
        if not line:
            self.p.wait()
            raise Refused(self.p.stderr.read().strip())
        self.__dict__.update(json.loads(line))
        self.addr4 = self.addrs[0].split("/")[0] if self.addrs else None
        self.addr6 = self.addrs[1].split("/")[0] if len(self.addrs) > 1 else None
        self.ns = os.open(f"/proc/{self.pid}/fd/{self.netns}", os.O_RDONLY) if self.netns >= 0 else -1
        world.sandboxes.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def run(self, fn, *args, **kw):
        with inside(self.ns):
            return fn(*args, **kw)

    def ask(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()
        return self.p.stdout.readline().strip()

    def forget(self):
        if self.ns >= 0:
            os.close(self.ns)
            self.ns = -1

    def end(self):
        self.forget()
        if self.p.poll() is None:
            self.p.stdin.close()
            self.p.wait(20)
        return self.p.returncode

    def kill(self):
        self.forget()
        self.p.kill()
        self.p.wait()


class Refused(Exception):
    pass


class Skip(Exception):
    pass


class World:
    def __init__(self, driver, libexec):
        self.root = tempfile.mkdtemp(prefix="caisson-net-")
        # A copy that a user without root can start, wherever the build tree is.
        self.driver, self.libexec = f"{self.root}/net-sandbox", f"{self.root}/libexec"
        os.mkdir(self.libexec)
        shutil.copy(driver, self.driver)
        shutil.copy(f"{libexec}/caisson-net", self.libexec)
        for path in (self.root, self.libexec):
            os.chmod(path, 0o755)
        self.sandboxes = []
        self.host = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        libc.unshare(CLONE_NEWNET)
        self.outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        sh("ip", "link", "set", "lo", "up")
        setns(self.host)
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "wan", "type", "veth", "peer", "name", "out", "netns", f"/proc/{os.getpid()}/fd/{self.outside}")
        for words in (["addr", "add", f"{WAN4}/24", "dev", "wan"], ["addr", "add", f"{WAN6}/64", "dev", "wan", "nodad"],
                      ["addr", "add", f"{LAN4}/32", "dev", "wan"], ["link", "set", "wan", "up"],
                      ["route", "add", "default", "via", OUT4], ["-6", "route", "add", "default", "via", OUT6]):
            sh("ip", *words)
        with inside(self.outside):
            for words in (["addr", "add", f"{OUT4}/24", "dev", "out"], ["addr", "add", f"{OUT6}/64", "dev", "out", "nodad"],
                          ["link", "set", "out", "up"], ["addr", "add", "169.254.169.254/32", "dev", "lo"],
                          ["addr", "add", "10.213.250.9/32", "dev", "lo"]):
                sh("ip", *words)
            self.web = Server(OUT4, 80)
            self.web6 = Server(OUT6, 80)
            self.udp = Server(OUT4, 7, "udp", echo=True)
            self.metadata = Server("169.254.169.254", 80, greeting=b"credentials")
        sh("ip", "route", "add", "169.254.169.254/32", "via", OUT4)
        self.n_servers = len(SERVERS)

    def command(self, *words, ok=True):
        p = subprocess.run([self.driver, "--root", self.root, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if ok and p.returncode:
            raise AssertionError(p.stderr)
        return p

    def leftovers(self):
        """Everything on the host that a sandbox's network could have left."""
        left = []
        if "caisson0" in sh("ip", "-o", "link"):
            left.append("link caisson0")
        if "caisson" in sh("nft", "list", "tables"):
            left.append("table caisson")
        for name in ("ipv4/conf/wan/forwarding", "ipv6/conf/wan/force_forwarding", "ipv6/conf/all/forwarding", "ipv4/ip_forward"):
            try:
                if open(f"/proc/sys/net/{name}").read().strip() != "0":
                    left.append(name)
            except FileNotFoundError:
                pass
        return left

    def clean(self):
        for s in self.sandboxes:
            s.end()
        self.sandboxes = []
        while len(SERVERS) > self.n_servers:
            SERVERS.pop().close()
        for line in self.command("ls").stdout.splitlines():
            self.command("rm", line.split()[0])
        self.command("heal")
        wait_until(lambda: not self.leftovers(), f"nothing left: {self.leftovers()}")


def router_of(sandbox):
    """A descriptor of the router's namespace, as another process finds it."""
    for path in glob_state():
        for line in open(path):
            if line.startswith("user "):
                _, pid, _, fd = line.split()
                if int(pid) == sandbox.pid:
                    return os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY)
    raise AssertionError("no router")


def number(sandbox):
    a = socket.inet_aton(sandbox.addr4)
    return a[2] << 8 | a[3]


def glob_state():
    cookie = struct.unpack("Q", socket.socket(socket.AF_UNIX).getsockopt(socket.SOL_SOCKET, 71, 8))[0]
    return [f"/run/caisson/net-{cookie}/state"]


# ---------------------------------------------------------------------------------------------------------------- tests

def test_a_container_reaches_the_outside_over_both_protocols(w):
    with Sandbox(w) as s:
        assert s.run(tcp_get, OUT4, 80) == b"hello\n"
        assert s.run(tcp_get, OUT6, 80) == b"hello\n"
        assert s.run(udp_get, OUT4, 7, data=b"x") == b"x"
        assert w.web.peers[-1] == WAN4, "leaves with the host's address"
        assert "lo" in s.run(sh, "ip", "-o", "link", "show", "up")


def test_two_sandboxes_do_not_reach_each_other(w):
    with Sandbox(w, "--id", "a") as a, Sandbox(w, "--id", "b") as b:
        with inside(b.ns):
            servers = [Server("0.0.0.0", 80), Server("::", 80), Server("0.0.0.0", 7, "udp", echo=True)]
        assert b.run(tcp_get, b.addr4, 80) == b"hello\n"
        unreachable(a.run, tcp_get, b.addr4, 80)
        unreachable(a.run, tcp_get, b.addr6, 80)
        unreachable(a.run, udp_get, b.addr4, 7)
        for s in servers:
            assert not s.peers or s.peers == [b.addr4]


def test_no_address_of_the_host_is_reachable(w):
    servers = [Server(a, 8080) for a in ("0.0.0.0", "::")] + [Server("0.0.0.0", 53, "udp", echo=True)]
    with Sandbox(w) as s:
        # Every address that the host has, whatever it is for, and a few ways to say loopback.
        text = sh("ip", "-o", "addr")
        addrs = [a for a in re.findall(r"inet6? ([0-9a-f.:]+)/", text) if not a.startswith("fe80")]
        assert WAN4 in addrs and WAN6 in addrs and LAN4 in addrs and any(a.startswith("10.213.255") for a in addrs)
        for addr in addrs + ["127.0.0.1", "127.0.0.9", "127.255.255.254", "0.0.0.0", "::1", "198.51.100.255", "255.255.255.255", s.gateway4]:
            unreachable(s.run, tcp_get, addr, 8080, timeout=1)
        for addr in (WAN4, LAN4):
            assert s.run(lambda: unreachable(udp_get, addr, 53, timeout=1))
        assert unreachable(s.run, tcp_get, WAN4, 8080) == "EHOSTUNREACH", "refused at once"
        for srv in servers:
            assert not srv.peers, srv.peers


def test_loopback_of_the_host_stays_closed_with_route_localnet(w):
    """route_localnet on the sandbox's side routes 127.0.0.0/8 out; neither router nor host take it."""
    secret = Server(HOST_SECRET, 8081)
    with Sandbox(w) as s:
        with inside(s.ns):
            open("/proc/sys/net/ipv4/conf/all/route_localnet", "w").write("1")
            sh("ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo", check=False)
            sh("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", check=False)
            sh("ip", "route", "add", "127.0.0.0/8", "via", s.gateway4, "dev", "eth0", "src", s.addr4)
            unreachable(tcp_get, HOST_SECRET, 8081, timeout=1)
            unreachable(udp_get, "127.0.0.1", 53, timeout=1)
    assert not secret.peers


def test_ports_that_others_publish_on_the_host_are_closed_too(w):
    """Destination NAT of other software on the host's addresses is not a way around."""
    sh("nft", "add table ip other; add chain ip other pre { type nat hook prerouting priority dstnat; };"
              f"add rule ip other pre ip daddr {WAN4} tcp dport 9999 dnat to {OUT4}:80")
    try:
        with Sandbox(w) as s:
            unreachable(s.run, tcp_get, WAN4, 9999)
    finally:
        sh("nft", "delete table ip other")


def test_metadata_services_are_refused(w):
    assert tcp_get("169.254.169.254", 80) == b"credentials", "the host itself reaches it"
    with Sandbox(w) as s:
        unreachable(s.run, tcp_get, "169.254.169.254", 80, timeout=1)


def test_an_unused_address_of_the_pool_is_not_somebody_outside(w):
    with Sandbox(w) as s:
        unreachable(s.run, tcp_get, "10.213.250.9", 80, timeout=1)


def test_spoofed_sources_are_dropped(w):
    """From a raw socket: another sandbox's address, the gateway's, the host's, and one of the outside."""
    with Sandbox(w, "--id", "a") as a, Sandbox(w, "--id", "b") as b:
        with inside(b.ns):
            sink = Server("0.0.0.0", 7, "udp", echo=True)
        with inside(a.ns):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            for src in (b.addr4, a.gateway4, WAN4, OUT4, "127.0.0.1", "10.213.255.253"):
                for dst in (OUT4, b.addr4):
                    raw.sendto(ip4_udp(src, dst, 1234, 7, b"spoofed"), (dst, 0))
        before = len(w.udp.peers)
        with inside(a.ns):
            raw.sendto(ip4_udp(a.addr4, OUT4, 1234, 7, b"honest"), (OUT4, 0))
        wait_until(lambda: len(w.udp.peers) > before, "the honest datagram arrives")
        time.sleep(0.2)
        assert len(w.udp.peers) == before + 1, w.udp.peers
        assert not sink.peers


def test_forged_icmp_errors_do_not_reach_another_sandbox(w):
    """An ICMP error about another's connection counts as related to it, wherever it comes from."""
    with Sandbox(w, "--id", "a") as a, Sandbox(w, "--id", "b") as b:
        with inside(b.ns):
            c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            c.bind((b.addr4, 4321))
            c.connect((OUT4, 7))
            c.settimeout(3)
            c.send(b"one")
        assert c.recv(100) == b"one"
        with inside(a.ns):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            # As it looks to the sandbox, after the router's translation, after the host's.
            for addr in (b.addr4, "10.213.255.254", WAN4):
                icmp = struct.pack("!BBHI", 3, 3, 0, 0) + ip4_udp(addr, OUT4, 4321, 7, b"one")[:28]
                icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
                head = ip4_udp(a.addr4, addr, 0, 0, b"")[:20]
                raw.sendto(head[:2] + struct.pack("!H", 20 + len(icmp)) + head[4:9] + b"\x01" + head[10:] + icmp, (addr, 0))
        time.sleep(0.2)
        c.send(b"two")
        assert c.recv(100) == b"two", "not refused by a forged error"


def test_neighbour_discovery_stays_on_its_link(w):
    """It is not tracked, so it would leave with whatever source it says."""
    got = []
    with inside(w.outside):
        sniff = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))
        sniff.bind(("out", 0))
        sniff.settimeout(1)
    with Sandbox(w) as a:
        with inside(a.ns):
            p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            p.bind(("eth0", 0))
            mac = bytes.fromhex(a.mac.replace(":", ""))
            for src in (WAN6, "2001:db8:77::1", a.addr6):
                f = nd_packet(mac, a, 135, b"\0" * 20, src=src, dst=OUT6)
                p.send(b"\x02\xca\x15\0\0\1" + f[6:])
            tcp_get(OUT6, 80)
        try:
            while True:
                f = sniff.recv(2000)
                if f[20] == 58 and f[54] == 135 and f[62:78] == b"\0" * 16:
                    got.append(f)
        except socket.timeout:
            pass
    assert not got


def test_spoofed_arp_and_nd_change_nothing(w):
    """A sandbox claims another's address by ARP and neighbour advertisement, and announces itself as a router."""
    w.command("create", "lan")
    with Sandbox(w, "--id", "a", "--network", "lan") as a, Sandbox(w, "--id", "b", "--network", "lan") as b, \
            Sandbox(w, "--id", "c", "--network", "lan") as c:
        with inside(b.ns):
            srv = Server("0.0.0.0", 80, greeting=b"I am b")
        with inside(c.ns):
            routes = sh("ip", "-6", "route")
        with inside(a.ns):
            fake = Server("0.0.0.0", 80, greeting=b"I am a")
            sh("ip", "addr", "add", f"{b.addr4}/32", "dev", "eth0")
            p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            p.bind(("eth0", 0))
            mac = bytes.fromhex(a.mac.replace(":", ""))
            ip = socket.inet_aton(b.addr4)
            for op, dst in ((1, b"\xff" * 6), (2, b"\xff" * 6), (2, bytes.fromhex("02ca15000001"))):
                p.send(dst + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + mac + ip + mac + ip)
            p.send(nd_packet(mac, a, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0)))  # router advertisement
            p.send(nd_packet(mac, a, 136, b"\x60\0\0\0" + socket.inet_pton(socket.AF_INET6, b.addr6) + b"\x02\x01" + mac))
        time.sleep(0.2)
        assert c.run(tcp_get, b.addr4, 80) == b"I am b"
        assert not fake.peers
        with inside(c.ns):
            assert sh("ip", "-6", "route") == routes
        router = router_of(a)
        with inside(router):
            neigh = sh("ip", "neigh", "show", b.addr4)
        os.close(router)
        # What a claims stays on its own link, where no route leads.
        assert all((b.mac if f"cs{number(b)} " in line else a.mac) in line for line in neigh.splitlines()), neigh
        assert f"dev cs{number(b)} lladdr {b.mac} PERMANENT" in neigh
    w.command("rm", "lan")


def test_a_flood_of_arp_does_not_fill_the_hosts_neighbour_table(w):
    with Sandbox(w) as a:
        with inside(a.ns):
            p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            p.bind(("eth0", 0))
            mac = bytes.fromhex(a.mac.replace(":", ""))
            for k in range(2000):
                src = socket.inet_aton(f"10.213.{k >> 8}.{k & 255}")
                p.send(b"\xff" * 6 + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + mac + src + b"\0" * 6 +
                       socket.inet_aton(a.gateway4))
        router = router_of(a)
        with inside(router):
            n = len(sh("ip", "neigh").splitlines())
        os.close(router)
        assert n < 150, n
        assert a.run(tcp_get, OUT4, 80) == b"hello\n"


def test_the_outside_and_the_host_do_not_reach_a_sandbox(w):
    with Sandbox(w) as s:
        with inside(s.ns):
            srv = [Server("0.0.0.0", 80), Server("::", 80)]
        unreachable(tcp_get, s.addr4, 80, timeout=1)
        sh("ip", "route", "add", "10.213.0.0/16", "via", "10.213.255.254")
        unreachable(tcp_get, s.addr4, 80, timeout=1)
        with inside(w.outside):
            sh("ip", "route", "add", "10.213.0.0/17", "via", WAN4)
            unreachable(tcp_get, s.addr4, 80, timeout=1)
            sh("ip", "route", "del", "10.213.0.0/17", "via", WAN4)
        sh("ip", "route", "del", "10.213.0.0/16", "via", "10.213.255.254")
        assert not srv[0].peers and not srv[1].peers


def test_the_host_forwards_for_nobody_else(w):
    """Forwarding is on for wan while a sandbox exists; between two links of the host nothing passes all the same."""
    sh("ip", "link", "add", "lan1", "type", "veth", "peer", "name", "lan1p")
    libc.unshare(CLONE_NEWNET)
    other = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    setns(w.host)
    sh("ip", "link", "set", "lan1p", "netns", f"/proc/{os.getpid()}/fd/{other}")
    sh("ip", "addr", "add", "203.0.113.1/24", "dev", "lan1")
    sh("ip", "link", "set", "lan1", "up")
    with inside(other):
        sh("ip", "addr", "add", "203.0.113.2/24", "dev", "lan1p")
        sh("ip", "link", "set", "lan1p", "up")
        sh("ip", "route", "add", "default", "via", "203.0.113.1")
    with inside(w.outside):
        sh("ip", "route", "add", "203.0.113.0/24", "via", WAN4)
        srv = Server(OUT4, 81)
    try:
        with inside(other):
            unreachable(tcp_get, OUT4, 81, timeout=1)
        with Sandbox(w) as s:
            assert s.run(tcp_get, OUT4, 80) == b"hello\n"
            assert open("/proc/sys/net/ipv4/ip_forward").read().strip() == "0"
            with inside(other):
                unreachable(tcp_get, OUT4, 81, timeout=1)
        assert not srv.peers
    finally:
        os.close(other)
        sh("ip", "link", "del", "lan1", check=False)  # it may have gone with its other end
        with inside(w.outside):
            sh("ip", "route", "del", "203.0.113.0/24", check=False)


def test_named_networks(w):
    w.command("create", "blue")
    w.command("create", "red")
    assert "already" in w.command("create", "blue", ok=False).stderr
    with Sandbox(w, "--id", "a" * 64, "--name", "alpha", "--network", "blue") as a, \
            Sandbox(w, "--id", "b" * 64, "--name", "beta", "--hostname", "Bee", "--network", "blue") as b, \
            Sandbox(w, "--id", "c" * 64, "--name", "gamma", "--network", "red") as c:
        servers = []
        for s in (a, b, c):
            with inside(s.ns):
                servers += [Server("0.0.0.0", 80), Server("::", 80)]
        assert a.run(tcp_get, b.addr4, 80) == b"hello\n"
        assert a.run(tcp_get, b.addr6, 80) == b"hello\n"
        assert servers[2].peers == [a.addr4] and servers[3].peers == [a.addr6], "members see each other's own addresses"
        unreachable(a.run, tcp_get, c.addr4, 80)
        unreachable(c.run, tcp_get, a.addr6, 80)
        assert a.run(tcp_get, OUT4, 80) == b"hello\n"
        members = w.command("members", "blue").stdout.split("\n")
        assert sorted(m.split()[1] for m in members if m) == ["alpha", "beta"]
        assert a.addr4 in w.command("members", "blue").stdout
        assert "2 members" in w.command("rm", "blue", ok=False).stderr
        # names
        assert "nameserver " + a.gateway4 in a.resolv_conf and "ndots:0" in a.resolv_conf
        assert a.run(dns_ask, a.gateway4, "beta") == [b.addr4]
        assert a.run(dns_ask, a.gateway4, "BETA", 28) == [b.addr6]
        assert a.run(dns_ask, a.gateway4, "bee") == [b.addr4]
        assert a.run(dns_ask, a.gateway4, "b" * 12) == [b.addr4]
        assert a.run(dns_ask, a.gateway4, "alpha", tcp=True) == [a.addr4]
        assert a.run(dns_ask, a.gateway4, "gamma", timeout=1) is None, "not of this network"
    w.command("rm", "blue")
    w.command("rm", "red")
    assert w.command("ls").stdout == ""


def test_an_internal_network_has_no_way_out(w):
    w.command("create", "inner", "internal")
    with Sandbox(w, "--id", "a", "--name", "one", "--network", "inner") as a, \
            Sandbox(w, "--id", "b", "--name", "two", "--network", "inner") as b:
        with inside(b.ns):
            srv = Server("0.0.0.0", 80)
        assert a.run(tcp_get, b.addr4, 80) == b"hello\n"
        unreachable(a.run, tcp_get, OUT4, 80)
        unreachable(a.run, tcp_get, OUT6, 80)
        assert a.run(dns_ask, a.gateway4, "two") == [b.addr4]
        assert a.run(dns_ask, a.gateway4, "example.org") == 5, "refused"
    w.command("rm", "inner")


def test_names_are_asked_of_the_hosts_server_on_loopback(w):
    """The host's resolver listens on 127.0.0.53 only; the sandbox gets its answers, and nothing else on loopback."""
    asked = []

    def answer(query):
        asked.append(query)
        return query[:2] + b"\x81\x80" + query[4:6] + b"\0\1\0\0\0\0" + query[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc6\x33\x64\x01"
    with Server_dns("127.0.0.53", answer), Server_dns("127.0.0.54", lambda q: None) as other:
        with Sandbox(w, "--dns", "127.0.0.53") as s:
            assert f"nameserver {s.gateway4}\n" in s.resolv_conf and "127.0.0" not in s.resolv_conf
            assert s.run(dns_ask, s.gateway4, "example.org") == ["198.51.100.1"]
            assert s.run(dns_ask, s.gateway4, "example.org", tcp=True) == ["198.51.100.1"]
            assert len(asked) >= 2
            unreachable(s.run, udp_get, "127.0.0.53", 53, timeout=1)
            # Other sandboxes cannot use it, and it answers no nonsense.
            with Sandbox(w, "--id", "other") as o:
                assert o.run(dns_ask, o.gateway4, "example.org", timeout=1) is None
            for junk in (b"", b"\0", b"\xff" * 12, b"\0" * 11, os.urandom(600), b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\1\0\1"):
                with inside(s.ns):
                    q = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    q.sendto(junk, (s.gateway4, 53))
            assert s.run(dns_ask, s.gateway4, "example.org") == ["198.51.100.1"], "still there"


def test_connections_that_one_sandbox_has_tracked_are_bounded(w):
    """Datagrams to ever new ports: beyond the limit new ones are dropped, while another sandbox goes on as before."""
    limit = max(256, min(4096, int(open("/proc/sys/net/netfilter/nf_conntrack_max").read()) // 64))
    with Sandbox(w, "--id", "a") as a, Sandbox(w, "--id", "b") as b:
        with inside(a.ns):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            for k in range(limit + 1000):
                raw.sendto(ip4_udp(a.addr4, OUT4, 1024 + k, 9, b"x"), (OUT4, 0))
        router = router_of(a)
        with inside(router):
            n = int(open("/proc/sys/net/netfilter/nf_conntrack_count").read())
        os.close(router)
        assert limit - 100 <= n <= limit + 200, n
        unreachable(a.run, udp_get, OUT4, 7, timeout=1)
        assert b.run(tcp_get, OUT4, 80) == b"hello\n"


def test_published_ports_over_tcp(w):
    with Sandbox(w, "-p", "8080:80", "-p", f"{WAN4}:8081:80", "-p", "[::1]:8080:80", "-p", "80", "-p", "8090-8091:80-81") as s:
        assert [p.split(" -> ")[1] for p in s.ports] == ["80/tcp"] * 5 + ["81/tcp"]
        assert unreachable(tcp_get, "127.0.0.1", 8080) == "ECONNRESET", "nobody listens inside yet"
        with inside(s.ns):
            srv = Server("0.0.0.0", 80, echo=True)
        for addr, port in (("127.0.0.1", 8080), (WAN4, 8081), ("::1", 8080), ("127.0.0.1", 8090),
                           ("127.0.0.1", int(re.search(r":(\d+) ", s.ports[3])[1]))):
            check_echo(addr, port)
        assert set(srv.peers) == {s.gateway4}
        for addr, port in ((WAN4, 8080), ("127.0.0.1", 8081), (LAN4, 8080)):
            unreachable(tcp_get, addr, port)
        with inside(w.outside):
            check_echo(WAN4, 8081)
            unreachable(tcp_get, WAN4, 8080)
    wait_until(lambda: unreachable(tcp_get, "127.0.0.1", 8080), "the port is given back")


def check_echo(addr, port):
    """Half a megabyte there and back, with a half-close in between."""
    data = os.urandom(500000)
    with socket.socket(family(addr), socket.SOCK_STREAM) as c:
        c.settimeout(10)
        c.connect((addr, port))
        t = threading.Thread(target=lambda: (c.sendall(data), c.shutdown(socket.SHUT_WR)))
        t.start()
        got = b""
        while chunk := c.recv(65536):
            got += chunk
        t.join()
    assert got == data, (len(got), len(data))


def test_a_slow_reader_stops_its_writer_and_nobody_else(w):
    with Sandbox(w, "-p", "8080:80") as s:
        with inside(s.ns):
            srv = Server("0.0.0.0", 80, echo=True)
        slow = socket.create_connection(("127.0.0.1", 8080))
        slow.setblocking(False)
        sent = 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                sent += slow.send(b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 64 << 20, "the writer is stopped"
        before = cpu_of_children(s.pid)
        check_echo("127.0.0.1", 8080)
        time.sleep(0.5)
        assert cpu_of_children(s.pid) - before < 0.4, "waiting costs nothing"
        slow.close()


def cpu_of_children(pid):
    total = 0
    for child in open(f"/proc/{pid}/task/{pid}/children").read().split():
        fields = open(f"/proc/{child}/stat").read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def test_published_ports_over_udp(w):
    with Sandbox(w, "-p", "5353:53/udp", "-p", "0.0.0.0:5354:53/udp", "-p", "[::]:5354:53/udp") as s:
        with inside(s.ns):
            srv = [Server("0.0.0.0", 53, "udp", echo=True), Server("::", 53, "udp", echo=True)]
        assert udp_get("127.0.0.1", 5353, data=b"a") == b"a"
        assert udp_get("::1", 5354, data=b"b") == b"b"
        # Answers come from the address that was asked, even one that is not the link's first.
        assert udp_get(LAN4, 5354, data=b"c") == b"c"
        with inside(w.outside):
            sh("ip", "route", "add", LAN4, "via", WAN4)
            assert udp_get(LAN4, 5354, data=b"d") == b"d"
            assert udp_get(WAN6, 5354, data=b"e") == b"e"
            unreachable(udp_get, WAN4, 5353, timeout=1)
            sh("ip", "route", "del", LAN4, "via", WAN4)
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
        for k, c in enumerate(clients):
            c.settimeout(3)
            c.sendto(b"%d" % k, ("127.0.0.1", 5353))
        for k, c in enumerate(clients):
            assert c.recv(100) == b"%d" % k


def test_a_busy_port_is_an_error_that_names_it(w):
    busy = Server("127.0.0.1", 8080)
    try:
        Sandbox(w, "-p", "8080:80")
        raise AssertionError("not refused")
    except Refused as e:
        assert "port 8080/tcp on 127.0.0.1 is in use" in str(e), e
    busy.close()
    assert w.leftovers() == []
    with Sandbox(w, "-p", "8082:80"):
        try:
            Sandbox(w, "--id", "second", "-p", "8082:80")
            raise AssertionError("not refused")
        except Refused as e:
            assert "8082" in str(e)


def test_the_helpers_are_confined(w):
    w.command("create", "net")
    with Sandbox(w, "--network", "net", "-p", "8080:80") as s:
        children = open(f"/proc/{s.pid}/task/{s.pid}/children").read().split()
        assert len(children) == 2, children
        for c in children:
            wait_until(lambda: "Seccomp:\t2" in open(f"/proc/{c}/status").read(), "confined")
            status = open(f"/proc/{c}/status").read()
            assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.M), status
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert f"{name}:\t0000000000000000" in status, status
            assert "NoNewPrivs:\t1" in status
            assert os.listdir(f"/proc/{c}/root/") == [], "an empty root"
            assert os.stat(f"/proc/{c}/ns/net").st_ino not in (os.fstat(w.host).st_ino, os.fstat(s.ns).st_ino)
    w.command("rm", "net")


def test_nothing_remains_after_an_orderly_end(w):
    with Sandbox(w, "-p", "8080:80"):
        assert set(w.leftovers()) >= {"link caisson0", "table caisson"}
    wait_until(lambda: not w.leftovers(), "nothing left")


def test_nothing_remains_after_kill_9(w):
    w.command("create", "net")
    for words in ([], ["--tap", "4"], ["--network", "net", "-p", "8080:80"]):
        s = Sandbox(w, *words)
        children = open(f"/proc/{s.pid}/task/{s.pid}/children").read().split()
        s.kill()
        wait_until(lambda: "caisson0" not in sh("ip", "-o", "link"), "the link goes by itself")
        wait_until(lambda: not any(os.path.exists(f"/proc/{c}") and "Z" not in open(f"/proc/{c}/stat").read() for c in children),
                   "the helpers go by themselves")
        w.command("heal")
        assert not w.leftovers(), w.leftovers()
        assert w.command("members", "net").stdout == ""
    w.command("rm", "net")


def test_healing_leaves_the_living_alone(w):
    a, b = Sandbox(w, "--id", "a"), Sandbox(w, "--id", "b")
    a.kill()
    w.command("heal")
    assert b.run(tcp_get, OUT4, 80) == b"hello\n"
    with Sandbox(w, "--id", "c") as c:
        assert c.run(tcp_get, OUT4, 80) == b"hello\n"
        assert c.addr4 != b.addr4
    b.end()


def test_rules_flushed_by_somebody_come_back_with_the_next_sandbox(w):
    with Sandbox(w, "--id", "a") as a:
        sh("nft", "flush", "ruleset")
        # The router's own wall before the host's addresses stands.
        srv = Server("0.0.0.0", 8080)
        for addr in (WAN4, LAN4, "10.213.255.253", "127.0.0.1"):
            unreachable(a.run, tcp_get, addr, 8080, timeout=1)
        unreachable(a.run, tcp_get, WAN6, 8080, timeout=1)
        assert not srv.peers
        srv.close()
        with Sandbox(w, "--id", "b") as b:
            assert b.run(tcp_get, OUT4, 80) == b"hello\n"
            srv = Server(WAN4, 8080)
            unreachable(a.run, tcp_get, WAN4, 8080)
            srv.close()


def test_the_router_lingers_for_the_next_sandbox(w):
    with Sandbox(w, linger="1500") as s:
        pool6 = s.addr6.rpartition("::")[0]
    with Sandbox(w, linger="1500") as s:
        assert s.addr6.rpartition("::")[0] == pool6, "the same router"
    assert "link caisson0" in w.leftovers()
    wait_until(lambda: not w.leftovers(), "and goes", 6)


def test_many_at_once(w):
    env = dict(os.environ, CAISSON_NET_LINGER_MS="0")
    procs = [subprocess.Popen([w.driver, "--root", w.root, "--libexec", w.libexec, "--id", f"s{k}"] + (["--tap", "1"] if k % 2 else []),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for k in range(40)]
    lines = [json.loads(p.stdout.readline()) for p in procs]
    assert len({line["addrs"][0] for line in lines}) == 40
    for p in procs:
        p.stdin.close()
    assert [p.wait(60) for p in procs] == [0] * 40
    wait_until(lambda: not w.leftovers(), "nothing left")


def test_counters(w):
    with Sandbox(w) as s:
        before = [int(v) for v in s.ask("stats").split()]
        s.run(tcp_get, OUT4, 80)
        after = [int(v) for v in s.ask("stats").split()]
        assert after[0] > before[0] and after[1] > before[1], (before, after)


def test_no_network(w):
    with Sandbox(w, "--none", "--hostname", "h", "--add-host", "db:192.0.2.7") as s:
        assert s.kind == 0 and s.addrs == [] and w.leftovers() == []
        assert "192.0.2.7\tdb" in s.hosts and "127.0.1.1\th" in s.hosts


def test_files_and_names_of_the_sandbox(w):
    with Sandbox(w, "--hostname", "web1", "--name", "shop", "--dns", "192.0.2.53", "--add-host", "db=2001:db8::7",
                 "--mac", "02:00:00:00:00:77") as s:
        assert s.resolv_conf.startswith("nameserver 192.0.2.53\n")
        assert f"{s.addr4}\tweb1 shop\n" in s.hosts and f"{s.addr6}\tweb1 shop\n" in s.hosts and "2001:db8::7\tdb\n" in s.hosts
        assert s.mac == "02:00:00:00:00:77"
        assert "02:00:00:00:00:77" in s.run(sh, "ip", "link", "show", "eth0")


# -- taps: the test is the guest

class Guest:
    """A microVM's side of a tap: frames with a virtio-net header in front."""

    def __init__(self, s):
        pidfd = os.pidfd_open(s.pid)
        self.fds = [libc.syscall(438, pidfd, fd, 0) for fd in s.fds]
        os.close(pidfd)
        assert all(fd >= 0 for fd in self.fds)
        self.s = s
        self.mac = bytes.fromhex(s.mac.replace(":", ""))

    def send(self, frame):
        os.write(self.fds[0], b"\0" * 12 + frame)

    def frames(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for fd in select.select(self.fds, [], [], left)[0]:
                yield os.read(fd, 70000)[12:]

    def udp(self, dst, port, data, src=None, src_mac=None, router=b"\x02\xca\x15\0\0\1"):
        self.send(router + (src_mac or self.mac) + b"\x08\0" + ip4_udp(src or self.s.addr4, dst, 4000, port, data))

    def wait_udp(self, seconds=8):
        for f in self.frames(seconds):
            if f[12:14] == b"\x08\0" and f[23] == 17:
                return f[14 + 20 + 8:14 + struct.unpack("!H", f[16:18])[0]]
        return None

    def echoed(self, dst, port, data):
        """Whether data comes back. UDP may be lost on a busy host, so it is sent again a few times."""
        for _ in range(4):
            self.udp(dst, port, data)
            if self.wait_udp(3) == data:
                return True
        return False

    def close(self):
        for fd in self.fds:
            os.close(fd)


def test_a_microvm_reaches_the_outside_through_its_tap(w):
    with Sandbox(w, "--tap", "4") as s:
        assert s.kind == 1 and len(s.fds) == 4 and s.gateway6.startswith("fe80::")
        g = Guest(s)
        # The gateway answers ARP, with the one address that all gateways have.
        g.send(b"\xff" * 6 + g.mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + g.mac + socket.inet_aton(s.addr4) +
               b"\0" * 6 + socket.inet_aton(s.gateway4))
        answer = next((f for f in g.frames(2) if f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2"), None)
        assert answer and answer[22:28] == b"\x02\xca\x15\0\0\1", answer
        assert g.echoed(OUT4, 7, b"from a guest")
        # As somebody else, or to somebody else: nothing.
        before = len(w.udp.peers)
        g.udp(OUT4, 7, b"x", src="10.213.9.9")
        g.udp(OUT4, 7, b"x", src=WAN4)
        secret = Server(WAN4, 77, "udp", echo=True)
        g.udp(WAN4, 77, b"x")
        g.udp("127.0.0.1", 77, b"x")
        time.sleep(0.3)
        assert len(w.udp.peers) == before and not secret.peers
        g.close()


def test_a_microvm_and_a_container_share_a_named_network(w):
    w.command("create", "mix")
    with Sandbox(w, "--id", "vm", "--tap", "1", "--network", "mix") as vm, Sandbox(w, "--id", "ct", "--network", "mix") as ct, \
            Sandbox(w, "--id", "alone") as alone:
        with inside(ct.ns):
            srv = Server("0.0.0.0", 7, "udp", echo=True)
        with inside(alone.ns):
            srv2 = Server("0.0.0.0", 7, "udp", echo=True)
        g = Guest(vm)
        g.udp(ct.addr4, 7, b"neighbour")
        assert g.wait_udp() == b"neighbour"
        g.udp(alone.addr4, 7, b"stranger")
        time.sleep(0.2)
        assert srv.peers == [vm.addr4] and not srv2.peers
        g.close()
    w.command("rm", "mix")


def test_broken_frames_harm_nothing(w):
    with Sandbox(w, "--tap", "1") as s:
        g = Guest(s)
        for n in list(range(0, 60)) + [1500, 9000, 65000]:
            for _ in range(3):
                try:
                    os.write(g.fds[0], os.urandom(n + 12))
                    g.send(os.urandom(n))
                    g.send(b"\x02\xca\x15\0\0\1" + g.mac + b"\x86\xdd" + os.urandom(n))
                except OSError:
                    pass
        g.udp(OUT4, 7, b"alive")
        got = g.wait_udp()
        assert got == b"alive", got
        g.close()


# -- without root

def need_passt():
    if not os.path.exists("/usr/bin/passt") or not os.path.exists("/usr/bin/setpriv"):
        raise Skip("needs passt and setpriv")


class StreamGuest(Guest):
    """A microVM's side of passt: frames with their length in front."""

    def send(self, frame):
        os.write(self.fds[0], struct.pack("!I", len(frame)) + frame)

    def frames(self, seconds):
        end, data = time.monotonic() + seconds, b""
        while (left := end - time.monotonic()) > 0:
            if select.select(self.fds, [], [], left)[0]:
                data += os.read(self.fds[0], 70000)
            while len(data) >= 4 and len(data) >= 4 + struct.unpack("!I", data[:4])[0]:
                n = struct.unpack("!I", data[:4])[0]
                yield data[4:4 + n]
                data = data[4 + n:]


def test_without_root_a_microvm_reaches_the_outside_through_passt(w):
    need_passt()
    secret = Server("0.0.0.0", 77, "udp", echo=True)
    with inside(w.outside):
        metadata = Server("169.254.169.254", 77, "udp", echo=True)
    with Sandbox(w, "--tap", "2", "-p", "8080:80", "-p", "[::1]:8081:81/udp", rootless=True) as s:
        assert s.kind == 2 and len(s.fds) == 1
        assert s.addr4 == WAN4 and s.gateway4 == OUT4
        g = StreamGuest(s)
        g.send(b"\xff" * 6 + g.mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + g.mac + socket.inet_aton(s.addr4) +
               b"\0" * 6 + socket.inet_aton(s.gateway4))
        answer = next((f for f in g.frames(3) if f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2"), None)
        assert answer, "no answer to ARP"
        router = answer[22:28]
        g.udp(OUT4, 7, b"from a guest", router=router)
        assert g.wait_udp() == b"from a guest"
        # Neither loopback itself nor the gateway's address stands for the host's loopback.
        for dst in (HOST_SECRET, WAN4, LAN4, "0.0.0.0", "169.254.169.254"):
            g.udp(dst, 77, b"x", router=router)
        g.udp(OUT4, 77, b"x", src=LAN4, router=router)
        Server("127.0.0.1", 78, "udp", echo=True)
        before = len(SERVERS[-1].peers)
        g.udp(s.gateway4, 78, b"x", router=router)
        time.sleep(0.3)
        assert not secret.peers and not metadata.peers and len(SERVERS[-1].peers) == before, (secret.peers, SERVERS[-1].peers)
        wait_until(lambda: listening("127.0.0.1", 8080), "the port is published")
        unreachable(tcp_get, WAN4, 8080, timeout=1)
        pids = children_of(s.pid)
        assert pids
        g.close()
        s.kill()
        wait_until(lambda: not any(alive(p) for p in pids), "passt goes with its owner")
    busy = Server("127.0.0.1", 8080)
    try:
        Sandbox(w, "--tap", "1", "-p", "8080:80", rootless=True)
        raise AssertionError("not refused")
    except Refused as e:
        assert "port 8080/tcp on 127.0.0.1 is in use" in str(e)
    busy.close()


def test_without_root_a_container_reaches_the_outside_through_passt(w):
    need_passt()
    if not os.stat("/dev/net/tun").st_mode & 6:
        # Only root may open it here; elsewhere everybody may. In this test's own mount namespace it is as elsewhere.
        os.mknod(f"{w.root}/tun", 0o20666, os.makedev(10, 200))
        os.chmod(f"{w.root}/tun", 0o666)
        libc.mount(None, b"/", None, 0x44000, None)
        if libc.mount(f"{w.root}/tun".encode(), b"/dev/net/tun", None, 4096, None) < 0:
            raise Skip("cannot open /dev/net/tun without root")
    secret, raw = Server("127.0.0.1", 7777), Server("0.0.0.0", 77, "udp", echo=True)
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    c = subprocess.Popen([*become, "unshare", "-Urn", "sh", "-c", "echo ready; exec sleep 1000"], stdout=subprocess.PIPE, text=True)
    if c.stdout.readline() != "ready\n":
        raise Skip("no user namespaces without root")
    try:
        with Sandbox(w, "-p", "8080:80", rootless=True) as s:
            assert s.attach_later and s.netns == -1
            assert s.ask(f"attach {c.pid}") == "attached"
            s.ns = os.open(f"/proc/{c.pid}/ns/net", os.O_RDONLY)
            assert s.run(tcp_get, OUT4, 80) == b"hello\n"
            assert s.run(udp_get, OUT4, 7, data=b"x") == b"x"
            with inside(s.ns):
                srv = Server("0.0.0.0", 80, echo=True)
            wait_until(lambda: listening("127.0.0.1", 8080), "the port is published")
            check_echo("127.0.0.1", 8080)
            for addr in ("127.0.0.1", s.gateway4):
                unreachable(s.run, tcp_get, addr, 7777, timeout=1)
            assert not secret.peers
            # A raw frame to the host's loopback, past the namespace's own routing.
            with inside(s.ns):
                p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                p.bind(("eth0", 0))
                mac = bytes.fromhex(s.mac.replace(":", ""))
                for dst in (HOST_SECRET, "127.0.0.1", WAN4, LAN4, "0.0.0.0"):
                    p.send(b"\x02" * 6 + mac + b"\x08\0" + ip4_udp(s.addr4, dst, 4000, 77, b"x"))
            time.sleep(0.3)
            assert not raw.peers
            pids = children_of(s.pid)
            assert len(pids) == 2
            s.kill()
            wait_until(lambda: not any(alive(p) for p in pids), "the helpers go with their owner")
    finally:
        c.kill()
        c.wait()


def test_without_root_a_named_network_is_refused_with_the_reason(w):
    need_passt()
    try:
        Sandbox(w, "--network", "blue", rootless=True)
        raise AssertionError("not refused")
    except Refused as e:
        assert "named networks need root" in str(e)


def listening(addr, port):
    with socket.socket(family(addr)) as s:
        return s.connect_ex((addr, port)) == 0


def children_of(pid):
    return [int(c) for c in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- small builders

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip4_udp(src, dst, sport, dport, data):
    udp = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def nd_packet(mac, s, kind, body, src="fe80::1234", dst="ff02::1"):
    src, dst = (socket.inet_pton(socket.AF_INET6, a) for a in (src, dst))
    icmp = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = src + dst + struct.pack("!II", len(icmp), 58)
    icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
    return b"\x33\x33\0\0\0\1" + mac + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + src + dst + icmp


class Server_dns(Server):
    def __init__(self, addr, handler):
        super().__init__(addr, 53, "udp", handler=handler)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def dns_ask(server, name, kind=1, tcp=False, timeout=10):
    """The addresses; an integer for an error code; None without an answer."""
    qname = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"
    query = os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + qname + struct.pack("!HH", kind, 1)
    try:
        if tcp:
            with socket.create_connection((server, 53), timeout) as s:
                s.sendall(struct.pack("!H", len(query)) + query)
                n = struct.unpack("!H", s.recv(2))[0]
                r = s.recv(n)
        else:
            # As resolvers do: UDP may be lost on a busy host.
            tries = 4 if timeout >= 4 else 1
            for left in range(tries, 0, -1):
                try:
                    r = udp_get(server, 53, timeout / tries, query)
                    break
                except OSError:
                    if left == 1:
                        raise
    except OSError:
        return None
    assert r[:2] == query[:2]
    if r[3] & 15:
        return r[3] & 15
    n, at, out = struct.unpack("!H", r[6:8])[0], len(query), []
    for _ in range(n):
        size = struct.unpack("!H", r[at + 10:at + 12])[0]
        out.append(socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, r[at + 12:at + 12 + size]))
        at += 12 + size
    return out


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def main():
    driver, libexec = sys.argv[1:3]
    if os.geteuid() != 0:
        skip("needs root")
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) < 0:
        skip(f"cannot make namespaces ({os.strerror(ctypes.get_errno())})")
    for tool in ("ip", "nft"):
        if subprocess.run(["sh", "-c", f"command -v {tool}"], stdout=subprocess.DEVNULL).returncode:
            skip(f"needs {tool}")
    if not os.path.exists("/dev/net/tun"):
        skip("needs /dev/net/tun")
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_") and (len(sys.argv) < 4 or sys.argv[3] in n)]
    failed = 0
    w = World(driver, libexec)
    print(f"1..{len(tests)}")
    for k, (name, f) in enumerate(tests, 1):
        title = name[5:].replace("_", " ")
        start = time.monotonic()
        try:
            f(w)
            w.clean()
            print(f"ok {k} {title} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as e:
            w.clean()
            print(f"ok {k} {title} # SKIP {e}", flush=True)
        except Exception as e:
            failed += 1
            import traceback
            traceback.print_exc()
            print(f"not ok {k} {title}: {type(e).__name__}: {e}", flush=True)
            try:
                w.clean()
            except Exception as more:
                print(f"# and then: {more}", flush=True)
    shutil.rmtree(w.root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
