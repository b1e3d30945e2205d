/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent protocol: between `caisson` on the host and `caisson-init` in a sandbox, over one stream for each process: vsock into a
 * microVM, a Unix socket into a container (`caisson-init --container`, which listens on its descriptor 3).
 *
 * Every frame is a 12-byte header {u32 body length, u16 type, u16 version, u32 reserved = 0}, little-endian, then the body.
 * A body is at most AGENT_MAX_BODY bytes. Either side closes the stream on a malformed frame.
 *
 * A session: the host connects (to port AGENT_PORT of a guest). The agent sends HELLO. Then one of
 *   - SETUP: machine-wide settings (hostname, clock, entropy, root file system); answered by OK or ERROR. Sent first. START or ATTACH may
 *     follow on the same stream. One that failed may be sent again. On a machine that is set up already (a copy of another) it gives it an
 *     identity of its own: see struct agent_setup.
 *   - START: a process; answered by STARTED or ERROR. Then STDIN / STDIN_CLOSE / RESIZE / SIGNAL from the host, STDOUT / STDERR
 *     / STDIN_CREDIT from the agent, and EXIT last, after all output. When the host closes the stream early, the process
 *     (its whole session) gets SIGHUP and then SIGKILL. With AGENT_START_DETACH nothing follows STARTED and the process lives on.
 *   - ATTACH: a process that an earlier stream STARTed and DETACHed; answered by ATTACHED or ERROR (AGENT_E_NOT_FOUND). Then as after
 *     STARTED, with the window that ATTACHED says.
 *   - POWEROFF: ends all processes (SIGTERM, SIGKILL half a second later), leaves the file systems clean and powers the machine off, or
 *     ends the agent where that is a container; answered by the stream's end.
 * Back-pressure: output waits on the stream itself; the agent stops reading the process's pipes when the stream is full.
 * Input has a window, so that RESIZE and SIGNAL never wait behind it: the host may send AGENT_STDIN_WINDOW bytes of STDIN, then
 * as much as STDIN_CREDIT frames hand back.
 *
 * DETACH takes the stream off a process that was STARTED (no function of the agent), so that nothing of it is on the way anywhere when the
 * machine is saved. It is the last frame of the host; what comes behind it is thrown away. The agent sends the output that it has read, then
 * DETACHED; or output and EXIT, when the process ended before. The process is not told: it goes on, and waits when its pipes or its
 * terminal are full; input that the agent has goes to it; a terminal keeps its size. What it writes, and how it ends, is kept for ATTACH, in
 * the machine and in every copy of it, for as long as it takes. A stream that is lost before DETACHED has left is lost as any other.
 *
 * After ERROR, EXIT or DETACHED the agent sends nothing more and ends its direction of the stream; the host then closes.
 *
 * When the agent is listening it opens (and closes) a connection to AGENT_READY_PORT of the host, CID 2: the monitor takes it as
 * "ready". In a container there is no such announcement: the socket listens before the agent is there.
 */
#ifndef PROTO_AGENT_H
#define PROTO_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define AGENT_VERSION      2
#define AGENT_PORT         1024 /* the agent listens here in the guest */
#define AGENT_READY_PORT   1024 /* the monitor listens here on the host's side */
#define AGENT_HEADER_SIZE  12
#define AGENT_MAX_BODY     (256u << 10)
#define AGENT_MAX_DATA     (64u << 10) /* most bytes in one STDIN, STDOUT or STDERR frame */
#define AGENT_STDIN_WINDOW (256u << 10)
#define AGENT_MAX_ARGS     4096
#define AGENT_MAX_STRING   (128u << 10)

enum agent_type {
	/* agent -> host */
	AGENT_HELLO = 1,     /* struct agent_hello */
	AGENT_OK,            /* empty */
	AGENT_ERROR,         /* struct agent_error */
	AGENT_STARTED,       /* u32 pid */
	AGENT_STDOUT,        /* bytes */
	AGENT_STDERR,        /* bytes */
	AGENT_STDIN_CREDIT,  /* u32 bytes consumed */
	AGENT_EXIT,          /* struct agent_exit */
	AGENT_DETACHED,      /* u32 pid */
	AGENT_ATTACHED,      /* struct agent_attached */
	/* host -> agent */
	AGENT_SETUP = 64,    /* struct agent_setup */
	AGENT_START,         /* struct agent_start */
	AGENT_STDIN,         /* bytes */
	AGENT_STDIN_CLOSE,   /* empty: end of file on the process's stdin */
	AGENT_RESIZE,        /* u16 rows, u16 columns */
	AGENT_SIGNAL,        /* u32 signal number, Linux x86-64 */
	AGENT_POWEROFF,      /* empty */
	AGENT_DETACH,        /* empty */
	AGENT_ATTACH,        /* u32 pid, as STARTED and DETACHED said */
};

struct agent_header {
	uint32_t len; /* of the body */
	uint16_t type, version;
};

struct agent_hello {
	uint32_t version;     /* AGENT_VERSION of the agent */
	char *kernel;         /* uname: "Linux 6.12.117-caisson x86_64"; owned */
};

enum agent_error_code {
	AGENT_E_INTERNAL = 1,
	AGENT_E_NOT_FOUND,    /* command does not exist: the host exits 127 */
	AGENT_E_NOT_EXEC,     /* command cannot be executed: 126 */
	AGENT_E_BAD_CWD,      /* the -w directory cannot be entered: 126 */
	AGENT_E_BAD_USER,     /* -u names nobody in the guest's /etc/passwd: 125 */
	AGENT_E_ROOTFS,       /* the root disk, or something below the root, cannot be mounted or written */
	AGENT_E_PROTOCOL,     /* malformed or unexpected frame */
	AGENT_E_NETWORK,      /* an interface cannot be set up as asked */
};
struct agent_error {
	uint32_t code;   /* enum agent_error_code */
	uint32_t errnum; /* Linux errno in the guest, or 0 */
	char *text;      /* one sentence; owned */
};

enum agent_root_mode {
	AGENT_ROOT_NONE = 0,          /* only with an empty root_dev */
	AGENT_ROOT_OVERLAY_TMPFS = 1, /* read-only lower from the disk, tmpfs upper */
	AGENT_ROOT_READONLY,
	AGENT_ROOT_DIRECT,            /* the disk itself, read-write */
	AGENT_ROOT_OVERLAY_DISK,      /* read-only lower from the disk, upper_dev's /upper as the writable layer */
};

/* A network interface, found by its MAC address. Where none has it, the first Ethernet interface that no other entry names gets it
 * (a machine restored from a template). It is brought up with these addresses and default routes and nothing else. */
#define AGENT_MAX_IFACES 8
#define AGENT_MAX_ADDRS  8
struct agent_iface {
	uint8_t mac[6];
	uint32_t mtu;                /* 0: as it is */
	unsigned n_addrs;
	char *addr[AGENT_MAX_ADDRS]; /* "10.88.0.2/24", "fd00::2/64"; owned */
	char *gateway4, *gateway6;   /* next hops of the default routes; need not be in a subnet of the addresses; empty: none; owned */
};

/* A file system below the root. Targets are resolved inside the root, and made where absent. In the order given. */
enum agent_mount_type {
	AGENT_MOUNT_VIRTIOFS = 1, /* source: the tag of a shared directory */
	AGENT_MOUNT_TMPFS,        /* source: not used */
	AGENT_MOUNT_BIND,         /* source: an absolute path in the root, a file or directory, with what is mounted below it */
	AGENT_MOUNT_DIRECTORY,    /* nothing is mounted: the target is a directory of the root, made where absent; source: not used */
};
#define AGENT_MOUNT_RDONLY (1u << 0)
#define AGENT_MAX_MOUNTS   64
struct agent_mount {
	uint32_t type;  /* enum agent_mount_type */
	uint32_t flags; /* AGENT_MOUNT_* */
	char *source, *target; /* owned */
	char *subpath;  /* VIRTIOFS: only this file or directory of the share, relative; empty: all of it; owned */
	/* mount(8)'s words with commas: [no]suid, [no]dev, [no]exec, ro, rw, [no]atime, relatime; for a tmpfs also size=, mode= and what
	 * else the kernel takes. A tmpfs is nosuid,nodev,noexec unless they say otherwise, a share nodev; owned */
	char *options;
};

#define AGENT_SETUP_READONLY_ROOT (1u << 0) /* the root is made read-only once all else is in place */
#define AGENT_MAX_ETC_FILE        (64u << 10)
/*
 * All strings owned after decoding; NULL is sent as empty. In a container the engine has done all of this already: SETUP is accepted
 * and nothing of it is applied.
 *
 * On a machine that is set up already, only what makes it another one than that it was copied from is applied, to running programs' eyes too:
 * clock, entropy, hostname, resolv_conf and hosts where they are not empty, and the interfaces, each taken down, rid of all its addresses
 * and routes, and brought up anew. A regular file /etc/machine-id that is not empty (systemd's) gets a new random id; the first SETUP
 * leaves it as the image or the disk has it. Files that a mount covers, or /etc itself where it is one, are left alone.
 */
struct agent_setup {
	char *hostname;
	uint64_t realtime_ns;      /* the host's CLOCK_REALTIME; 0: leave the guest's clock */
	uint8_t entropy[32];       /* credited to the guest's random pool */
	char *root_dev;            /* "/dev/vda"; empty: stay in the initramfs */
	char *root_fstype;         /* "erofs", "ext4", or empty: try both */
	uint32_t root_mode;        /* enum agent_root_mode */
	uint32_t flags;            /* AGENT_SETUP_* */
	char *upper_dev;           /* AGENT_ROOT_OVERLAY_DISK: "/dev/vdb"; its directories /upper and /work are made where absent */
	char *upper_fstype;        /* "ext4" */
	char *resolv_conf, *hosts; /* what /etc/resolv.conf and /etc/hosts say, at most AGENT_MAX_ETC_FILE bytes; a link there is replaced, not
				    * followed; empty: the image's own */
	unsigned n_ifaces, n_mounts;
	struct agent_iface iface[AGENT_MAX_IFACES];
	struct agent_mount mount[AGENT_MAX_MOUNTS];
};

#define AGENT_START_TTY     (1u << 0) /* a terminal: stdin, stdout and stderr are one pty; output comes as STDOUT */
#define AGENT_START_STDIN   (1u << 1) /* stdin is a pipe (or the pty); without it stdin is /dev/null */
#define AGENT_START_BUILTIN (1u << 2) /* a function of the agent, not a program: see below */
#define AGENT_START_DETACH  (1u << 3) /* stdin, stdout and stderr are /dev/null; not with TTY or STDIN */
/*
 * argv of AGENT_START_BUILTIN. Each runs as the START's user in a process of its own; on failure it writes one sentence to stderr and
 * ends with 1 (2: wrong usage).
 *   tar-out PATH          a tar of PATH to stdout: ustar, with pax headers where that cannot say it. Names begin with PATH's last component,
 *                         or with "." where that is empty, "." or "..". PATH's own last component is followed only with a "/" behind it.
 *                         Owners by number, hard links, devices and FIFOs; no sockets, no extended attributes. What is below
 *                         PATH on another /proc, /sys or the like is left out.
 *   tar-in DIR [FLAG]...  extracts a tar from stdin below DIR, which must exist. Nothing is ever made outside of DIR: names with ".." are
 *                         refused, and so is going through a link that leaves DIR; a leading "/" is dropped. A file that is there is
 *                         replaced; a directory and a non-directory never replace each other. What was extracted before an error stays.
 *                         As root owners are the archive's numbers, else the user's own. FLAG: "--owner=UID:GID" (for everything).
 *   prepare DEV FSTYPE [--overlay | --upper DEV FSTYPE] [-- CMD...]
 *                         for a machine that is going to be saved as a template; the only START that comes before SETUP, not after it. Mounts
 *                         the disk as SETUP would as the root's lower file system, and with --overlay the whole root of
 *                         AGENT_ROOT_OVERLAY_TMPFS, with --upper that of AGENT_ROOT_OVERLAY_DISK: such a template includes that disk, as it is
 *                         when the machine is saved, and each copy needs a copy of it. SETUP takes what fits and unmounts what does not. Then runs, as a rehearsal, /bin/true and /bin/sh
 *                         in a root like that which SETUP makes, and CMD before them (as root, with START's environment, its output is
 *                         this one's; failing, when CMD's status is not 0): they get namespaces of their own and leave no
 *                         process, mount or file. A device must appear, and its slot have a disk, within 2 seconds; for SETUP too.
 *   stat PATH             {"type":"dir|file|link|other","mode":N,"size":N,"uid":N,"gid":N,"mtime":N,"target":"..."}; the last component is not
 *                         followed; mode: the 12 permission bits; target: of a link, as it is
 *   ps                    [{"pid":N,"ppid":N,"uid":N,"user":"...","state":"S","cpu_ms":N,"rss":BYTES,"start_ms":SINCE_1970,"cmd":"..."},...]
 *                         without kernel threads, the agent and itself; user: absent without a name
 *   stats                 {"uptime_ms":,"processes":,"load":[,,],"cpu":{"online":,"usage_ns":},"memory":{"total":,"free":,"available":,"cached":,
 *                         "swap_total":,"swap_free":,"oom_kills":},"rootfs":{"size":,"used":,"free":},
 *                         "net":{"eth0":{"rx_bytes":,"rx_packets":,"tx_bytes":,"tx_packets":},...}}; bytes; in a container what /proc says there
 * JSON comes as one line. Its strings are what programs and files in the sandbox chose, made valid UTF-8.
 */
struct agent_rlimit {
	uint32_t resource; /* RLIMIT_* of Linux x86-64 */
	uint64_t soft, hard;
};
#define AGENT_MAX_RLIMITS 16
struct agent_start {
	uint32_t flags;
	uint16_t rows, cols; /* first size of the terminal; 0: unknown */
	char **argv;         /* NULL-terminated, at least one; owned */
	char **env;          /* NULL-terminated "NAME=value"; PATH, HOME, TERM are added by the agent where absent; owned */
	char *cwd;           /* empty: "/" ; created if absent, as docker does; owned */
	char *user;          /* "", "name", "uid", "name:group", "uid:gid"; looked up in the guest's root; owned */
	unsigned n_rlimits;
	struct agent_rlimit rlimit[AGENT_MAX_RLIMITS];
};

#define AGENT_EXIT_OOM (1u << 0) /* it did not end with status 0, and the kernel killed something in the sandbox for memory in its time */
struct agent_exit {
	uint32_t status; /* exit status, when signal is 0 */
	uint32_t signal; /* the signal that ended it; the host exits 128 + signal */
	uint32_t flags;  /* AGENT_EXIT_* */
};

#define AGENT_ATTACHED_STDIN (1u << 0) /* stdin is still open: STDIN and STDIN_CLOSE may be sent */
struct agent_attached {
	uint32_t window; /* bytes of STDIN that the host may send now; credit comes on top of that */
	uint32_t flags;  /* AGENT_ATTACHED_* */
};

/* Parse a header. Returns 0, or -1 for a body over AGENT_MAX_BODY, another version, a reserved field not 0. */
int agent_get_header(const uint8_t raw[AGENT_HEADER_SIZE], struct agent_header *h, struct cai_error *err);
/* Append a whole frame: header and body. */
void agent_put_frame(struct buf *out, enum agent_type type, const void *body, size_t len);

/* Encode a body as a whole frame appended to out. A body over AGENT_MAX_BODY sets out->failed, as running out of memory does; texts
 * of HELLO and ERROR are cut to 256 and 1024 bytes; NULL strings and lists are sent empty. */
void agent_put_hello(struct buf *out, const struct agent_hello *m);
void agent_put_error(struct buf *out, uint32_t code, uint32_t errnum, const char *text);
void agent_put_exit(struct buf *out, const struct agent_exit *m);
void agent_put_attached(struct buf *out, const struct agent_attached *m);
void agent_put_u32(struct buf *out, enum agent_type type, uint32_t v); /* STARTED, STDIN_CREDIT, SIGNAL, DETACHED, ATTACH */
void agent_put_resize(struct buf *out, uint16_t rows, uint16_t cols);
void agent_put_setup(struct buf *out, const struct agent_setup *m);
void agent_put_start(struct buf *out, const struct agent_start *m);

/* Decode a body. Return 0, or -1 with *err on anything malformed; on success owned fields are the caller's, to be released
 * with the matching free function, which accepts a zeroed struct. Texts that a user's terminal will show (HELLO's kernel, ERROR's
 * sentence) come back without control characters. */
int agent_get_hello(const void *body, size_t len, struct agent_hello *m, struct cai_error *err);
int agent_get_error(const void *body, size_t len, struct agent_error *m, struct cai_error *err);
int agent_get_exit(const void *body, size_t len, struct agent_exit *m, struct cai_error *err);
int agent_get_attached(const void *body, size_t len, struct agent_attached *m, struct cai_error *err);
int agent_get_u32(const void *body, size_t len, uint32_t *v, struct cai_error *err);
int agent_get_resize(const void *body, size_t len, uint16_t *rows, uint16_t *cols, struct cai_error *err);
int agent_get_setup(const void *body, size_t len, struct agent_setup *m, struct cai_error *err);
int agent_get_start(const void *body, size_t len, struct agent_start *m, struct cai_error *err);
void agent_hello_free(struct agent_hello *m);
void agent_error_free(struct agent_error *m);
void agent_setup_free(struct agent_setup *m);
void agent_start_free(struct agent_start *m);

#endif
