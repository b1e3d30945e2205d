# SPDX-License-Identifier: Apache-2.0
"""The host's side of the agent protocol (src/proto/agent.h) for tests: blocking, one session a connection."""
import os
import select
import socket
import struct

VERSION = 2
(HELLO, OK, ERROR, STARTED, STDOUT, STDERR, CREDIT, EXIT, DETACHED, ATTACHED) = range(1, 11)
(SETUP, START, STDIN, STDIN_CLOSE, RESIZE, SIGNAL, POWEROFF, DETACH_STREAM, ATTACH) = range(64, 73)
TTY, WITH_STDIN, BUILTIN, DETACH = 1, 2, 4, 8
OVERLAY_TMPFS, READONLY, DIRECT, OVERLAY_DISK = 1, 2, 3, 4
VIRTIOFS, TMPFS, BIND = 1, 2, 3
WINDOW = 256 << 10


class AgentError(Exception):
    def __init__(self, code, text):
        super().__init__(f"error {code}: {text}")
        self.code, self.text = code, text


def s(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<I", len(data)) + data


def strings(values):
    return struct.pack("<I", len(values)) + b"".join(map(s, values))


class Session:
    """path: the monitor's vsock socket, or a container's agent socket with vsock=False."""

    def __init__(self, path, vsock=True, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        if vsock:
            self.sock.sendall(b"CONNECT 1024\n")
            line = b""
            while not line.endswith(b"\n"):
                byte = self.sock.recv(1)
                if not byte:
                    raise EOFError("no answer to CONNECT")
                line += byte
        kind, body = self.receive()
        if kind != HELLO:
            raise AssertionError(f"frame {kind} instead of HELLO")

    def send(self, kind, body=b""):
        self.sock.sendall(struct.pack("<IHHI", len(body), kind, VERSION, 0) + body)

    def exactly(self, n):
        data = bytearray()
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise EOFError("the stream ended")
            data += more
        return bytes(data)

    def receive(self):
        n, kind, _, _ = struct.unpack("<IHHI", self.exactly(12))
        body = self.exactly(n)
        if kind == ERROR:
            code, _, size = struct.unpack("<III", body[:12])
            raise AgentError(code, body[12:12 + size].decode())
        return kind, body

    def setup(self, hostname="box", realtime_ns=0, root_dev="", fstype="", mode=0, flags=0, upper_dev="", upper_fstype="", resolv="", hosts="",
              ifaces=(), mounts=()):
        """ifaces: (mac, mtu, [addresses], gateway4, gateway6); mounts: (type, flags, source, target, subpath, options)."""
        body = s(hostname) + struct.pack("<Q", realtime_ns) + bytes(32) + s(root_dev) + s(fstype) + struct.pack("<II", mode, flags)
        body += s(upper_dev) + s(upper_fstype) + s(resolv) + s(hosts) + struct.pack("<I", len(ifaces))
        for mac, mtu, addresses, gateway4, gateway6 in ifaces:
            body += bytes.fromhex(mac.replace(":", "")) + struct.pack("<I", mtu) + strings(addresses) + s(gateway4) + s(gateway6)
        body += struct.pack("<I", len(mounts))
        for kind, mount_flags, source, target, subpath, options in mounts:
            body += struct.pack("<II", kind, mount_flags) + s(source) + s(target) + s(subpath) + s(options)
        self.send(SETUP, body)
        kind, _ = self.receive()
        if kind != OK:
            raise AssertionError(f"frame {kind} instead of OK")

    def start(self, argv, flags=0):
        """Its pid."""
        self.send(START, struct.pack("<IHH", flags, 0, 0) + strings(argv) + strings(()) + s("") + s("") + struct.pack("<I", 0))
        kind, body = self.receive()
        assert kind == STARTED, kind
        return struct.unpack("<I", body)[0]

    def attach(self, pid):
        """(window, flags)"""
        self.send(ATTACH, struct.pack("<I", pid))
        kind, body = self.receive()
        assert kind == ATTACHED, kind
        return struct.unpack("<II", body)

    def read_until(self, last):
        """Output up to a frame of kind last, and its body."""
        out = bytearray()
        while True:
            kind, body = self.receive()
            if kind == last:
                return bytes(out), body
            assert kind in (STDOUT, CREDIT), kind
            out += body if kind == STDOUT else b""

    def run(self, argv, flags=0, stdin=None, env=(), cwd="", user=""):
        """(stdout, stderr, status, signal, flags of EXIT)"""
        flags |= WITH_STDIN if stdin is not None else 0
        self.send(START, struct.pack("<IHH", flags, 0, 0) + strings(argv) + strings(env) + s(cwd) + s(user) + struct.pack("<I", 0))
        out, err, window, at, closed = bytearray(), bytearray(), WINDOW, 0, stdin is None
        while True:
            while not closed and (at == len(stdin) or window):
                n = min(window, len(stdin) - at, 65536)
                if at == len(stdin):
                    self.send(STDIN_CLOSE)
                    closed = True
                    break
                if select.select([self.sock], [self.sock], [])[0]:
                    break
                self.send(STDIN, stdin[at:at + n])
                at += n
                window -= n
            try:
                kind, body = self.receive()
            except EOFError:
                if flags & DETACH:
                    return bytes(out), bytes(err), 0, 0, 0
                raise
            if kind == STDOUT:
                out += body
            elif kind == STDERR:
                err += body
            elif kind == CREDIT:
                window += struct.unpack("<I", body)[0]
            elif kind == EXIT:
                self.sock.close()
                return (bytes(out), bytes(err)) + struct.unpack("<III", body)

    def power_off(self):
        """POWEROFF; returns when the stream has ended."""
        self.send(POWEROFF)
        try:
            while self.sock.recv(4096):
                pass
        except ConnectionResetError:
            pass


def wait_for(path, seconds=20):
    import time
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)
