/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol: between `caisson` and one `caisson-vmm`, over a SOCK_SEQPACKET Unix socket, one message a packet.
 * The monitor inherits its end as descriptor CONTROL_FD. A jailed monitor opens nothing, so whatever it needs comes with
 * CONFIGURE as descriptors (SCM_RIGHTS): in the order of enum control_fd for those whose bit is set in `fds`, then the disks, the
 * networks (each with all of its descriptors) and the shared directories. control_config_fds() lists them so.
 *
 * A packet is a 12-byte header {u32 magic, u16 version, u16 type, u32 sequence}, little-endian, then the body. Each request gets
 * one reply, OK, ERROR or STATUS, with the request's sequence; events have sequence 0. When the last client's end closes, the
 * monitor stops the guest at once and exits, so no sandbox outlives who started it; with a listening socket (CONTROL_FD_LISTEN)
 * it goes on and waits for further clients, which is how a sandbox is detached.
 */
#ifndef PROTO_CONTROL_H
#define PROTO_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define CONTROL_FD          3 /* the inherited socket */
#define CONTROL_MAGIC       0x4e534943u /* "CISN" */
#define CONTROL_VERSION     2
#define CONTROL_MAX_PACKET  (64u << 10)
#define CONTROL_MAX_DISKS   16
#define CONTROL_MAX_NETS    8
#define CONTROL_MAX_NET_FDS 8
#define CONTROL_MAX_FS      16
#define CONTROL_MAX_LAYERS  8 /* memory files of one snapshot */
#define CONTROL_MAX_FDS     (CONTROL_N_FDS + CONTROL_MAX_DISKS + CONTROL_MAX_NETS * CONTROL_MAX_NET_FDS + CONTROL_MAX_FS)
#define CONTROL_MAX_CMDLINE 2048

enum control_type {
	/* requests */
	CONTROL_CONFIGURE = 1, /* struct control_config + descriptors; once, first */
	CONTROL_START,         /* empty; once */
	CONTROL_PAUSE,         /* empty; OK when every vCPU has stopped at an instruction boundary */
	CONTROL_RESUME,        /* empty */
	CONTROL_QUERY,         /* empty; answered by STATUS */
	CONTROL_STOP,          /* empty; the guest is ended at once; OK, then ENDED(STOPPED), then the monitor exits */
	CONTROL_SNAPSHOT,      /* struct control_snapshot + descriptors; OK when all is written. A running guest is paused for it */
	CONTROL_ATTACH_DISK,   /* struct control_attach + the disk's descriptor: fills an empty disk slot; the guest is told */
	/* replies */
	CONTROL_OK = 64,       /* empty */
	CONTROL_ERROR,         /* u32 errno, string */
	CONTROL_STATUS,        /* struct control_status */
	/* events */
	CONTROL_READY = 128,   /* empty: the agent in the guest listens */
	CONTROL_ENDED,         /* struct control_ended; the monitor exits after it */
};

enum control_fd {
	CONTROL_FD_KERNEL,  /* regular file, read-only: required, unless a snapshot is restored */
	CONTROL_FD_INITRD,  /* regular file, read-only */
	CONTROL_FD_CONSOLE, /* where the serial port's output goes: pipe, file or terminal */
	CONTROL_FD_CONSOLE_IN, /* where its input comes from */
	CONTROL_FD_VSOCK,   /* a listening SOCK_STREAM Unix socket: "CONNECT port\n" gives a stream to the guest */
	CONTROL_FD_LISTEN,  /* a listening SOCK_SEQPACKET Unix socket for further control clients */
	CONTROL_FD_KVM,     /* /dev/kvm, for accel kvm */
	/* Instead of a kernel: a snapshot to restore (docs/snapshots.md). vcpus, mem_bytes and cpu_model then are the snapshot's, or 0 and
	 * empty; the devices must be the ones that it was taken with. */
	CONTROL_FD_STATE,   /* its state file */
	CONTROL_FD_CODE,    /* its decoded code: only one that this very build wrote on this host and that nobody else could write to */
	CONTROL_FD_MEMORY,  /* the first of its memory files, in the order of its memory index; the others follow */
	CONTROL_N_FDS = CONTROL_FD_MEMORY + CONTROL_MAX_LAYERS,
};

enum control_accel { CONTROL_ACCEL_SOFT = 1, CONTROL_ACCEL_KVM };

#define CONTROL_DISK_READONLY (1u << 0)
#define CONTROL_DISK_EMPTY    (1u << 1) /* a slot without a disk, and without a descriptor here; see CONTROL_ATTACH_DISK */
struct control_disk {
	uint32_t flags;
	char id[20]; /* virtio-blk serial, NUL-padded */
};

/* What a network device is connected to; see virtio/net.h, and net_tap_setup() there for how a tap must be prepared. */
enum control_net_kind {
	CONTROL_NET_TAP = 1, /* a tap, one descriptor a queue */
	CONTROL_NET_STREAM,  /* a connected Unix stream socket, each frame behind its length, as passt speaks */
	CONTROL_NET_DGRAM,   /* a connected datagram or seqpacket socket, a frame a message */
};
struct control_net {
	uint8_t mac[6];    /* of one station: bit 0 of the first byte is clear, not all zero */
	uint16_t mtu;      /* bytes, at least 68; 0: the guest is told none */
	uint8_t kind;      /* enum control_net_kind */
	uint8_t n_fds;     /* 1 to n_pairs, more than 1 for taps only; 0: not connected, the link is down */
	uint8_t n_pairs;   /* queue pairs the guest sees, 1 to CONTROL_MAX_NET_FDS; 0: as many as there are descriptors, at least 1 */
	uint64_t offloads; /* VIRTIO_NET_F_* bits that the tap was set up for; 0 for sockets */
};

/* A directory of the host, served by another process at the other end of a connected Unix stream socket (caisson-fs(8)). */
struct control_fs {
	char tag[36];      /* what the guest mounts it by: 1 to 36 bytes, NUL-padded, not necessarily terminated */
	uint32_t flags;    /* none yet */
};

#define CONTROL_FLAG_VERIFY        (1u << 1) /* a snapshot's memory is checked as a whole before the guest runs */
#define CONTROL_FLAG_VERIFY_LATE   (1u << 2) /* soft: by chunks of 64 KiB, when the guest first uses them; elsewhere as CONTROL_FLAG_VERIFY */
/* The new generation id of a restored guest comes without its interrupt: its agent, or whoever restores it, gives it new random numbers, and the
 * guest's kernel need not interpret ACPI's code for that. */
#define CONTROL_FLAG_QUIET_GENERATION (1u << 3)
#define CONTROL_FLAG_SELFTEST_JAIL (1u << 0) /* test: once jailed, try what jail_probe names, to show that it is fatal */
struct control_config {
	uint32_t flags;
	uint32_t vcpus;        /* 1..32 */
	uint64_t mem_bytes;
	uint32_t accel;        /* enum control_accel */
	char cpu_model[16];    /* "v2" */
	uint64_t code_cache_bytes; /* soft: 0 = default */
	char *cmdline;         /* kernel command line; the monitor adds nothing to it; owned */
	char jail_probe[16];   /* "open", "socket", "execve", "ptrace" with CONTROL_FLAG_SELFTEST_JAIL */
	uint32_t n_disks;
	struct control_disk disk[CONTROL_MAX_DISKS];
	uint32_t n_nets;
	struct control_net net[CONTROL_MAX_NETS];
	uint32_t n_fs;
	struct control_fs fs[CONTROL_MAX_FS];
	/* not on the wire: descriptors, -1 where absent; owned by the struct */
	int fd[CONTROL_N_FDS];
	int disk_fd[CONTROL_MAX_DISKS];
	int net_fd[CONTROL_MAX_NETS][CONTROL_MAX_NET_FDS];
	int fs_fd[CONTROL_MAX_FS];
};

enum control_state { CONTROL_STATE_NEW = 1, CONTROL_STATE_CONFIGURED, CONTROL_STATE_RUNNING, CONTROL_STATE_PAUSED };
struct control_status {
	uint32_t state;         /* enum control_state */
	uint32_t vcpus, accel, ready;
	uint64_t mem_bytes;
	uint64_t uptime_ns;     /* since START */
	uint64_t instructions;  /* over all vCPUs; 0: the accelerator cannot say */
	uint64_t instructions_at_ready; /* the same when the agent announced itself */
	uint64_t blocks_decoded, code_cache_bytes, tlb_misses, assists;
	uint64_t balloon_bytes; /* guest memory given back to the host by reporting, so far */
	/* Summed over all network devices, as the guest sees it: rx is what it received. Bytes are of whole frames. */
	uint64_t net_rx_bytes, net_rx_frames, net_tx_bytes, net_tx_frames;
	uint64_t net_rx_dropped, net_tx_dropped;
	/* Summed over all disks: what was read and written with success, and how many requests asked for it. */
	uint64_t disk_read_bytes, disk_reads, disk_written_bytes, disk_writes;
	/* Summed over all shared directories: file contents, and requests of any kind. */
	uint64_t fs_read_bytes, fs_written_bytes, fs_requests;
};

/*
 * Writes a snapshot to empty files that the client has opened for writing: state, memory, and with CONTROL_SNAPSHOT_CODE a third for decoded
 * code. Syncing and naming them is the client's business, after OK. A running guest goes on afterwards, a paused one stays paused. After
 * a failure the guest goes on as if nothing had been asked.
 */
#define CONTROL_SNAPSHOT_CODE        (1u << 0)
#define CONTROL_SNAPSHOT_INCREMENTAL (1u << 1) /* only what has changed since the snapshot `parent`, the last that this monitor wrote or was restored from */
#define CONTROL_SNAPSHOT_STOP        (1u << 2) /* the guest does not go on: OK, then ENDED(STOPPED) */
struct control_snapshot {
	uint32_t flags;
	uint8_t parent[16];
	/* not on the wire: owned */
	int state_fd, memory_fd, code_fd;
};

struct control_attach {
	uint32_t disk;  /* index among the disks */
	uint32_t flags; /* CONTROL_DISK_READONLY */
	int fd;         /* not on the wire: owned */
};

enum control_end {
	CONTROL_END_POWEROFF = 1, /* the guest powered off */
	CONTROL_END_RESET,        /* the guest asked for a reset */
	CONTROL_END_PANIC,        /* the guest's kernel panicked: text has the reason, console the last lines */
	CONTROL_END_TRIPLE_FAULT,
	CONTROL_END_STOPPED,      /* CONTROL_STOP, or the client went away */
	CONTROL_END_ACCEL_LOST,   /* the accelerator failed: text says how */
	CONTROL_END_JAIL,         /* the monitor made a call its jail forbids: text names it */
	CONTROL_END_INTERNAL,     /* a defect of the monitor */
};
struct control_ended {
	uint32_t reason;  /* enum control_end */
	char *text;       /* one sentence; owned */
	char *console;    /* the last lines of the serial console, at most 8 KiB, or empty; owned */
};

struct control_header {
	uint16_t type;
	uint32_t seq;
};

/* Encoders append one packet; a packet that would be too large sets out->failed. ERROR's and ENDED's texts are cut to 2048 bytes, the
 * console to its last 8 KiB. */
void control_put(struct buf *out, enum control_type type, uint32_t seq); /* header only */
void control_put_config(struct buf *out, uint32_t seq, const struct control_config *c);
void control_put_snapshot(struct buf *out, uint32_t seq, const struct control_snapshot *s);
void control_put_attach(struct buf *out, uint32_t seq, const struct control_attach *a);
void control_put_error(struct buf *out, uint32_t seq, uint32_t errnum, const char *text);
void control_put_status(struct buf *out, uint32_t seq, const struct control_status *s);
void control_put_ended(struct buf *out, const struct control_ended *e);

/* Takes the header off r. Texts that decoders return hold no control characters (the console: newlines and tabs only). */
int control_get_header(struct buf_reader *r, struct control_header *h, struct cai_error *err);
/* fds: the n descriptors that came with the packet; on success they belong to *c, on failure all are closed. */
int control_get_config(struct buf_reader *r, int *fds, unsigned n, struct control_config *c, struct cai_error *err);
int control_get_snapshot(struct buf_reader *r, int *fds, unsigned n, struct control_snapshot *s, struct cai_error *err);
int control_get_attach(struct buf_reader *r, int *fds, unsigned n, struct control_attach *a, struct cai_error *err);
int control_get_error(struct buf_reader *r, uint32_t *errnum, char **text, struct cai_error *err);
int control_get_status(struct buf_reader *r, struct control_status *s, struct cai_error *err);
int control_get_ended(struct buf_reader *r, struct control_ended *e, struct cai_error *err);
void control_config_init(struct control_config *c); /* zeroes, descriptors -1 */
/* The configuration's descriptors in the order in which they travel; returns how many. They stay the configuration's. */
unsigned control_config_fds(const struct control_config *c, int fds[CONTROL_MAX_FDS]);
void control_config_free(struct control_config *c); /* closes descriptors too */
void control_ended_free(struct control_ended *e);

/* One packet with its descriptors over a SEQPACKET socket. send: 0 or -1 with errno. recv: bytes, 0 at the peer's end, -1 with
 * errno; received descriptors are close-on-exec, at most *n_fds of them (more: closed, EMSGSIZE). */
int control_send(int sock, const void *p, size_t n, const int *fds, unsigned n_fds);
long control_recv(int sock, void *p, size_t max, int *fds, unsigned *n_fds);

#endif
