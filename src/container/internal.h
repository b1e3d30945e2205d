/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this folder; nobody else includes it. */
#ifndef CONTAINER_INTERNAL_H
#define CONTAINER_INTERNAL_H

#include <sys/mount.h>
#include <sys/stat.h>

#include "container/container.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

#define CONTAINER_UID_COUNT 65536u
/* Users that the roots of containers are on the host: a range that nobody assigns, one block of 65,536 ids for each of 3,584 places. Below
 * 2^31, since the kernel's net.ipv4.ping_group_range ends there. */
#define CONTAINER_UID_BASE   0x71000000u
#define CONTAINER_UID_BLOCKS 3584u

/* What the child tells the parent: once before it executes the agent, or once when it fails. */
struct child_report {
	bool failed;
	bool no_idmap; /* failed because a file system cannot be mapped into a user namespace: try again without one */
	bool landlock, seccomp;
	char note[200];
	struct cai_error err;
};

/* The child on its way to becoming the container. Descriptors are -1 where there is none. */
struct child {
	const struct container_spec *spec;
	const struct cgroup *cgroup;
	bool enter_cgroup;  /* it was not born there */
	bool rootless;      /* already in a user namespace of its own, as its root */
	bool host_net;      /* the network namespace is the caller's own */
	int userns_fd;      /* to be joined at the end, where not rootless */
	uint32_t uid_base;  /* what files made for the container's root belong to: 0 without userns_fd */
	int agent_fd;       /* to be executed; nothing can be written through it */
	int report_fd;
	int root_fd;        /* the container's root mount */
	int dev_fd, proc_fd;
	int null_tree;      /* a mount of the container's /dev/null, to be cloned */
	int sources[CONTAINER_MAX_MOUNTS];
	struct child_report report;
};

/* child.c: never returns. */
void container_child(struct child *c) __attribute__((noreturn));

/* mount.c: the new mount API. All descriptors are close-on-exec. */
struct mount_option {
	const char *key, *value; /* value NULL: a flag */
};
int mount_new(const char *type, const struct mount_option *options, unsigned n, unsigned attr, struct cai_error *err);
int mount_clone(int dirfd, const char *path, bool recursive); /* -1 with errno */
int mount_change(int fd, uint64_t set, int userns_fd, bool recursive);
int mount_attach(int fd, int target, struct cai_error *err);
int mount_attach_at(int fd, const char *host_path);

/* path.c: names in the container's root, which are hostile. */
int inroot_open(int root, const char *path, int flags);
int inroot_own_dir(int root, const char *name, struct cai_error *err);
int inroot_make_dirs(int root, const char *path, struct cai_error *err);
int inroot_make_file(int root, const char *path, struct cai_error *err);
int inroot_write(int root, const char *dir, const char *name, const char *text, struct cai_error *err);

/* rootfs.c, system.c, volumes.c: in this order. */
int rootfs_make(struct child *c, struct cai_error *err);
int rootfs_enter(struct child *c, struct cai_error *err);
int system_dev(struct child *c, struct cai_error *err);
int system_proc(struct child *c, struct cai_error *err);
int system_sys(struct child *c, struct cai_error *err);
int system_files(struct child *c, struct cai_error *err);
int volumes_open(struct child *c, struct cai_error *err);
int volumes_attach(struct child *c, struct cai_error *err);

/* loop.c: the way for kernels that mount no files. */
int loop_attach(int image_fd, char *path, size_t size, struct cai_error *err);

/* confine.c */
int confine_capability(const char *name); /* number of "NET_ADMIN" or "CAP_NET_ADMIN", -1 */
int confine_capability_set(const struct container_spec *spec, uint64_t *caps, struct cai_error *err);
int confine_limits(struct child *c, struct cai_error *err);
int confine_capabilities(uint64_t caps, struct cai_error *err);
int confine_landlock(struct child *c, uint64_t caps, struct cai_error *err);
int confine_seccomp(uint64_t caps, struct cai_error *err);

/* userns.c */
int userns_make(uint32_t base, struct cai_error *err);               /* a namespace of 65,536 ids from base; its descriptor */
int userns_map_rootless(pid_t pid, char *note, size_t size, struct cai_error *err);
uint32_t userns_base(const char *id);

#endif
