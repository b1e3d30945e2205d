/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container engine: a process in namespaces of its own, with the agent as its PID 1.
 *
 * container_start() makes the namespaces (pid, mount, network, ipc, uts, cgroup and, where it can, user), a root of the image with an
 * overlay, /proc, /sys and /dev, masks what docker masks, drops capabilities to docker's default set, sets no_new_privs, confines the
 * rest with Landlock and seccomp, and executes the agent. It returns when the agent runs. Everything else is said over the agent's
 * protocol. Nothing is mounted on the host: all mounts live in the container's mount namespace and end with it.
 *
 * The image, the upper directory and everything in a mounted directory is hostile: no path in them is ever resolved except below the
 * container's root (openat2, RESOLVE_IN_ROOT), and mounts go to descriptors, never to names.
 *
 * Threads: the caller must be single-threaded or at least keep the thread that called container_start() alive: the kernel kills
 * the container when that thread ends. The caller is the parent of PID 1 and reaps it (waitid on pidfd).
 */
#ifndef CONTAINER_CONTAINER_H
#define CONTAINER_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"
#include "cgroup/cgroup.h"

#define CONTAINER_AGENT_LISTEN_FD 3       /* what the agent inherits: the listening socket; 0 to 2 are the container's /dev/null */
#define CONTAINER_MAX_MOUNTS      64

enum container_mount_kind {
	CONTAINER_BIND,
	CONTAINER_TMPFS,
	CONTAINER_DIRECTORY, /* nothing is mounted: the target is made where it is absent */
};
struct container_mount {
	enum container_mount_kind kind;
	const char *source;  /* BIND: absolute path on the host, a directory or a regular file (or socket); TMPFS: NULL */
	const char *target;  /* absolute path in the container, resolved there, made when absent; not "/", nor below /proc or /sys */
	bool readonly;
	const char *options; /* TMPFS: "size=64m,mode=1777", or NULL; BIND: NULL */
};

struct container_rlimit {
	int resource; /* RLIMIT_* */
	rlim_t soft, hard; /* lowered to what the caller may set: without CAP_SYS_RESOURCE a limit is never raised, and that is no error */
};

enum container_userns {
	CONTAINER_USERNS_AUTO,  /* one where the kernel and all file systems concerned allow it: the container's root is then nobody on the host */
	CONTAINER_USERNS_NEVER, /* the container's root is the host's root (confined): only for a root caller */
	CONTAINER_USERNS_ALWAYS,
};

/* All strings are borrowed for the call. Zero-initialise, then set descriptors to -1 where there is none. */
struct container_spec {
	const char *id;       /* names the cgroup: [A-Za-z0-9_.-], at most CGROUP_ID_MAX */
	const char *hostname; /* NULL: the id's first 12 characters */
	int image_fd;         /* EROFS file, open for reading; -1: rootfs_dir. Root only: no user namespace may mount EROFS */
	const char *rootfs_dir; /* absolute path of an unpacked root: the overlay's lower layer, never written */
	const char *upper_dir;  /* absolute host directory for the writable layer (upper/ and work/ are made in it); NULL: memory */
	bool discard;           /* upper_dir will be removed when the container has ended: nothing in it has to reach the disk, and fsync
				 * does nothing. Such a directory can be used again only with this flag */
	uint64_t tmpfs_size;    /* of the writable layer in memory, bytes; 0: half of RAM, and the cgroup's limit */
	uint64_t shm_size;      /* of /dev/shm; 0: 64 MiB */
	bool read_only;         /* the root is read-only once the container is set up (mounts, /dev and /dev/shm are not) */
	const struct container_mount *mounts;
	unsigned n_mounts;
	int netns_fd;           /* network namespace to join; -1: a new one with nothing but loopback (up) */
	const char *resolv_conf, *hosts; /* contents of /etc/resolv.conf and /etc/hosts; NULL: the image's stay */
	struct cgroup_limits limits;
	const struct container_rlimit *rlimits;
	unsigned n_rlimits;
	int oom_score_adj;      /* 0: unchanged; raised only */
	const char *const *cap_add, *const *cap_drop; /* docker's names ("NET_ADMIN", "ALL"), NULL-terminated, or NULL */
	bool seccomp_unconfined;
	enum container_userns userns;
	int agent_fd;           /* caisson-init, open for reading (O_RDONLY or O_PATH) */
	int listen_fd;          /* the listening socket that the agent serves */
};

struct container {
	char id[CGROUP_ID_MAX + 1];
	pid_t pid;            /* of PID 1, as the host counts */
	int pidfd;            /* owned; POLLIN when it has ended */
	uint64_t start_time;  /* clock ticks since boot (field 22 of /proc/PID/stat): with pid an identity that survives a crash of ours */
	struct cgroup cgroup;
	bool userns;          /* root in the container is not root on the host */
	uint32_t uid_base;    /* the host's user that the container's root is, where userns */
	bool landlock, seccomp; /* in force */
	char note[480];       /* what is weaker on this host than it could be, joined by "; ", else "" */
};

/* Starts it; returns when the agent has been executed. On failure nothing is left (no process, no cgroup, no mount), and *err says what
 * failed. *out is to be given to container_destroy(). */
int container_start(const struct container_spec *spec, struct container *out, struct cai_error *err);

/* Sends a signal to PID 1 (the agent; it ignores all but SIGKILL, which ends every process in the container). */
int container_kill(const struct container *c, int sig, struct cai_error *err);
int container_freeze(const struct container *c, struct cai_error *err);
int container_thaw(const struct container *c, struct cai_error *err);
int container_stats(const struct container *c, struct cgroup_stats *out, struct cai_error *err);
int container_update(const struct container *c, const struct cgroup_limits *limits, struct cai_error *err);
/* Waits for PID 1 and reaps it; *status as waitpid() has it. timeout_ms < 0: for ever. Returns 1 when it ended, 0 at the timeout, -1. */
int container_wait(struct container *c, int timeout_ms, int *status, struct cai_error *err);
/* Kills what is left, reaps PID 1, removes the cgroup, closes the pidfd. To be called also after container_wait() has seen the end: the cgroup
 * stays until then, so that its statistics can be read. Safe on a zeroed struct, and again. */
int container_destroy(struct container *c, struct cai_error *err);

/* After a crash of the runner or a reboot: kills what is left of the container `id`, removes its cgroup. pid and start_time as recorded from
 * struct container (0 where unknown: the cgroup alone is then searched). Nothing there is no error. */
int container_heal(const char *id, pid_t pid, uint64_t start_time, struct cai_error *err);

/*
 * For users who may not mount EROFS (everybody but root: no user namespace may): the image as a directory, to be given as rootfs_dir. Done once an
 * image; `dir` must not be there (else nothing is done), its parent must. It appears whole or not at all. Owners are right where /etc/subuid grants the
 * user a range of ids. Device nodes and extended attributes are left out. Such a tree is removed with container_remove_tree(), and so is the
 * upper_dir of such a user's container: its files belong to ids of the range. A directory that is not there is no error.
 */
int container_unpack(int image_fd, const char *dir, struct cai_error *err);
int container_remove_tree(const char *dir, struct cai_error *err);

/* Whether this user on this host can start containers, one sentence of what is missing, else ""; and of what is weaker. For doctor. */
bool container_probe(char *text, size_t size);

#endif
