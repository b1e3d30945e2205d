# SPDX-License-Identifier: Apache-2.0
"""A client of the monitor's control protocol (src/proto/control.h), for benchmarks and tests that drive a monitor directly."""
import socket
import struct

FD = 3
MAGIC, VERSION = 0x4E534943, 2
CONFIGURE, START, PAUSE, RESUME, QUERY, STOP, SNAPSHOT = range(1, 8)
OK, ERROR, STATUS = 64, 65, 66
READY, ENDED = 128, 129
FD_KERNEL, FD_INITRD, FD_CONSOLE, FD_CONSOLE_IN, FD_VSOCK, FD_LISTEN, FD_KVM, FD_STATE, FD_CODE, FD_MEMORY = range(10)
ACCEL_SOFT, ACCEL_KVM = 1, 2
DISK_READONLY = 1
NET_TAP = 1
ENDS = {1: "poweroff", 2: "reset", 3: "panic", 4: "triple fault", 5: "stopped", 6: "accelerator lost", 7: "jail", 8: "internal"}

STATUS_FIELDS = (
    "state", "vcpus", "accel", "ready", "mem_bytes", "uptime_ns", "instructions", "instructions_at_ready",
    "blocks_decoded", "code_cache_bytes", "tlb_misses", "assists", "balloon_bytes",
    "net_rx_bytes", "net_rx_frames", "net_tx_bytes", "net_tx_frames", "net_rx_dropped", "net_tx_dropped",
    "disk_read_bytes", "disk_reads", "disk_written_bytes", "disk_writes", "fs_read_bytes", "fs_written_bytes", "fs_requests",
)  # fmt: skip


class ControlError(Exception):
    """The monitor answered ERROR, or ended."""


def string(data):
    return struct.pack("<I", len(data)) + data


class Client:
    def __init__(self, sock):
        self.sock, self.seq, self.events = sock, 0, []

    def close(self):
        self.sock.close()

    def receive(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise ControlError("the monitor closed its control socket")
        magic, version, kind, seq = struct.unpack_from("<IHHI", data)
        if magic != MAGIC or version != VERSION:
            raise ControlError("not the control protocol: %r" % data[:16])
        return kind, seq, data[12:]

    def request(self, kind, body=b"", fds=()):
        self.seq += 1
        packet = struct.pack("<IHHI", MAGIC, VERSION, kind, self.seq) + body
        if fds:
            socket.send_fds(self.sock, [packet], list(fds))
        else:
            self.sock.send(packet)
        while True:
            got, seq, body = self.receive()
            if seq == 0:
                self.events.append((got, body))
                if got == ENDED:
                    raise ControlError(self.ended_text(body))
            elif got == ERROR:
                raise ControlError(body[8:].decode(errors="replace"))
            else:
                return got, body

    @staticmethod
    def ended_text(body):
        reason, length = struct.unpack_from("<II", body)
        return "%s: %s" % (ENDS.get(reason, reason), body[8 : 8 + length].decode(errors="replace"))

    def configure(self, vcpus, mem_bytes, accel, cpu_model, cmdline, fds, disks=(), code_cache=0, shares=(), nets=()):
        """fds: {FD_*: descriptor}; disks: [(descriptor, flags, id)]; shares: [(descriptor, tag)]; nets: taps, [(mac, [descriptor], offloads)].
        Descriptors stay the caller's."""
        bits = sum(1 << k for k in fds)
        body = struct.pack("<IIQI16sQ", 0, vcpus, mem_bytes, accel, cpu_model.encode(), code_cache)
        body += string(cmdline.encode()) + bytes(16) + struct.pack("<II", bits, len(disks))
        for _, flags, name in disks:
            body += struct.pack("<I20s", flags, name.encode())
        body += struct.pack("<I", len(nets))
        for mac, queues, offloads in nets:
            body += mac + struct.pack("<HBBBQ", 0, NET_TAP, len(queues), 0, offloads)
        body += struct.pack("<I", len(shares))
        for _, tag in shares:
            body += struct.pack("<36sI", tag.encode(), 0)
        self.request(CONFIGURE, body, [fds[k] for k in sorted(fds)] + [d[0] for d in disks] + [q for n in nets for q in n[1]] + [s[0] for s in shares])

    def snapshot(self, state, memory, flags=0):
        """Writes a snapshot to two empty files."""
        self.request(SNAPSHOT, struct.pack("<I16s", flags, b""), [state, memory])

    def start(self):
        self.request(START)

    def query(self):
        _, body = self.request(QUERY)
        return dict(zip(STATUS_FIELDS, struct.unpack("<IIII%dQ" % (len(STATUS_FIELDS) - 4), body)))
