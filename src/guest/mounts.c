/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a mount is made as a descriptor that belongs nowhere yet (fsopen and fsmount, or open_tree for a bind), gets its
 * flags, and is then moved onto its target, which is a descriptor too. No path is looked up twice and none leaves the root.
 *
 * A share of which only one file or directory is wanted is mounted out of sight in /dev, and that is bound; a clone can be made only
 * of what is mounted somewhere.
 */
#include "guest/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "guest/kernel_abi.h"
#include "guest/resolve.h"

static int move_mount_to(int mount_fd, int target_fd)
{
	return (int)syscall(GUEST_NR_MOVE_MOUNT, mount_fd, "", target_fd, "", GUEST_MOVE_F_EMPTY_PATH | GUEST_MOVE_T_EMPTY_PATH);
}

static int set_attributes(int mount_fd, uint64_t set)
{
	/* What the options do not name keeps what the bind's source has. */
	struct guest_mount_attr attr = {.set = set, .clear = set & GUEST_MOUNT_ATIME ? GUEST_MOUNT_ATIME : 0};
	if (!set)
		return 0;
	return (int)syscall(GUEST_NR_MOUNT_SETATTR, mount_fd, "", GUEST_AT_EMPTY_PATH | GUEST_AT_RECURSIVE, &attr, sizeof(attr));
}

/* One word of the options: a flag, changed in *attr, or not. */
static bool take_flag(const char *word, uint64_t *attr)
{
	static const struct {
		const char *word;
		uint64_t clear, set;
	} flags[] = {
		{"rw", GUEST_MOUNT_RDONLY, 0},
		{"ro", 0, GUEST_MOUNT_RDONLY},
		{"suid", GUEST_MOUNT_NOSUID, 0},
		{"nosuid", 0, GUEST_MOUNT_NOSUID},
		{"dev", GUEST_MOUNT_NODEV, 0},
		{"nodev", 0, GUEST_MOUNT_NODEV},
		{"exec", GUEST_MOUNT_NOEXEC, 0},
		{"noexec", 0, GUEST_MOUNT_NOEXEC},
		{"atime", GUEST_MOUNT_ATIME, 0},
		{"relatime", GUEST_MOUNT_ATIME, 0},
		{"noatime", GUEST_MOUNT_ATIME, GUEST_MOUNT_NOATIME},
		{"strictatime", GUEST_MOUNT_ATIME, GUEST_MOUNT_STRICTATIME},
		{"nodiratime", 0, GUEST_MOUNT_NODIRATIME},
	};
	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		if (!strcmp(word, flags[i].word)) {
			*attr = (*attr & ~flags[i].clear) | flags[i].set;
			return true;
		}
	}
	return false;
}

/* Splits the options: flags into *attr, the others to fs (a descriptor of fsopen), or refused without one. */
static int apply_options(const struct agent_mount *m, int fs, uint64_t *attr, struct cai_error *err)
{
	cleanup_free char *text = strdup(m->options ? m->options : "");
	char *save = NULL;

	if (!text)
		return cai_fail(err, ENOMEM, "out of memory in the guest");
	for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (take_flag(w, attr))
			continue;
		if (fs < 0)
			return cai_fail(err, EINVAL, "the mount on %.200s cannot have the option \"%.64s\"", m->target, w);
		char *value = strchr(w, '=');
		if (value)
			*value++ = 0;
		if (syscall(GUEST_NR_FSCONFIG, fs, value ? GUEST_FSCONFIG_STRING : GUEST_FSCONFIG_FLAG, w, value, 0) < 0)
			return cai_fail_errno(err, errno, "the tmpfs on %.200s cannot have the option \"%.64s%s%.64s\"", m->target, w,
					      value ? "=" : "", value ? value : "");
	}
	if (m->flags & AGENT_MOUNT_RDONLY)
		*attr |= GUEST_MOUNT_RDONLY;
	return 0;
}

static int mount_from(int fs, uint64_t attr)
{
	if (syscall(GUEST_NR_FSCONFIG, fs, GUEST_FSCONFIG_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return (int)syscall(GUEST_NR_FSMOUNT, fs, GUEST_FSMOUNT_CLOEXEC, attr);
}

static int make_tmpfs(const struct agent_mount *m, struct cai_error *err)
{
	uint64_t attr = GUEST_MOUNT_NOSUID | GUEST_MOUNT_NODEV | GUEST_MOUNT_NOEXEC;
	cleanup_close int fs = (int)syscall(GUEST_NR_FSOPEN, "tmpfs", GUEST_FSOPEN_CLOEXEC);
	if (fs < 0)
		return cai_fail_errno(err, errno, "no memory file system for %.200s", m->target);
	syscall(GUEST_NR_FSCONFIG, fs, GUEST_FSCONFIG_STRING, "source", "tmpfs", 0);
	if (apply_options(m, fs, &attr, err) < 0)
		return -1;
	int fd = mount_from(fs, attr);
	return fd < 0 ? cai_fail_errno(err, errno, "cannot make the tmpfs for %.200s", m->target) : fd;
}

static int make_share(const struct agent_mount *m, struct cai_error *err)
{
	uint64_t attr = GUEST_MOUNT_NODEV;
	if (apply_options(m, -1, &attr, err) < 0)
		return -1;
	cleanup_close int fs = (int)syscall(GUEST_NR_FSOPEN, "virtiofs", GUEST_FSOPEN_CLOEXEC);
	if (fs < 0)
		return cai_fail_errno(err, errno, "the guest's kernel has no virtiofs");
	syscall(GUEST_NR_FSCONFIG, fs, GUEST_FSCONFIG_STRING, "source", m->source, 0);
	int fd = mount_from(fs, attr);
	if (fd < 0 && errno == EINVAL)
		return cai_fail(err, EINVAL, "the machine has no shared directory \"%.64s\"", m->source);
	return fd < 0 ? cai_fail_errno(err, errno, "cannot mount the shared directory \"%.64s\"", m->source) : fd;
}

static int clone_tree(int fd, const struct agent_mount *m, uint64_t attr, struct cai_error *err)
{
	cleanup_close int tree = (int)syscall(GUEST_NR_OPEN_TREE, fd, "",
					      GUEST_AT_EMPTY_PATH | GUEST_AT_RECURSIVE | GUEST_OPEN_TREE_CLONE | GUEST_OPEN_TREE_CLOEXEC);
	if (tree < 0 || set_attributes(tree, attr) < 0)
		return cai_fail_errno(err, errno, "cannot make the mount for %.200s", m->target);
	return steal_fd(&tree);
}

static int make_bind(int root, const struct agent_mount *m, struct cai_error *err)
{
	uint64_t attr = 0;
	if (apply_options(m, -1, &attr, err) < 0)
		return -1;
	cleanup_close int source = resolve_open(root, m->source, RESOLVE_ROOTED, O_PATH);
	if (source < 0)
		return cai_fail_errno(err, errno, "%.200s cannot be mounted on %.200s", m->source, m->target);
	return clone_tree(source, m, attr, err);
}

/* The part of a whole share that is wanted. share is not mounted yet. */
static int make_part(int share, const struct agent_mount *m, struct cai_error *err)
{
	char stage[] = "/dev/.caisson-share.XXXXXX";
	int tree = -1;

	if (!mkdtemp(stage))
		return cai_fail_errno(err, errno, "no place for the shared directory \"%.64s\"", m->source);
	cleanup_close int at = open(stage, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0 || move_mount_to(share, at) < 0) {
		cai_fail_errno(err, errno, "cannot mount the shared directory \"%.64s\"", m->source);
	} else {
		cleanup_close int part = resolve_open(share, m->subpath, RESOLVE_BENEATH, O_PATH);
		if (part < 0)
			cai_fail_errno(err, errno, "the shared directory \"%.64s\" has no %.200s", m->source, m->subpath);
		else
			tree = clone_tree(part, m, 0, err); /* the flags are the share's */
		umount2(stage, MNT_DETACH);
	}
	rmdir(stage);
	return tree;
}

static int make_detached(int root, const struct agent_mount *m, struct cai_error *err)
{
	if (m->type == AGENT_MOUNT_TMPFS)
		return make_tmpfs(m, err);
	if (m->type == AGENT_MOUNT_BIND)
		return make_bind(root, m, err);
	cleanup_close int share = make_share(m, err);
	if (share < 0 || !m->subpath || !*m->subpath)
		return steal_fd(&share);
	return make_part(share, m, err);
}

/* A new empty file, unless there is one already. */
static int open_file_target(int root, const char *target)
{
	char parent[4096];
	int fd = resolve_open(root, target, RESOLVE_ROOTED, O_PATH);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	const char *name = strrchr(target, '/');
	int n = name ? (int)(name - target) : 0;
	name = name ? name + 1 : target;
	if (!*name || snprintf(parent, sizeof(parent), "%.*s", n, target) >= (int)sizeof(parent)) {
		errno = ENOENT;
		return -1;
	}
	cleanup_close int dir = resolve_dir(root, parent, RESOLVE_ROOTED, true);
	if (dir < 0)
		return -1;
	fd = openat(dir, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	return resolve_open(dir, name, RESOLVE_BENEATH, O_PATH | O_NOFOLLOW);
}

static int make_one(int root, const struct agent_mount *m, struct cai_error *err)
{
	struct stat st, rst, tst;
	if (m->type == AGENT_MOUNT_DIRECTORY) {
		cleanup_close int dir = resolve_dir(root, m->target, RESOLVE_ROOTED, true);
		return dir < 0 ? cai_fail_errno(err, errno, "cannot make the directory %.200s", m->target) : 0;
	}
	cleanup_close int fd = make_detached(root, m, err);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot mount on %.200s", m->target);
	cleanup_close int target = S_ISDIR(st.st_mode) ? resolve_dir(root, m->target, RESOLVE_ROOTED, true) : open_file_target(root, m->target);
	if (target < 0 || fstat(target, &tst) < 0 || fstat(root, &rst) < 0)
		return cai_fail_errno(err, errno, "%.200s cannot be mounted on", m->target);
	if (tst.st_dev == rst.st_dev && tst.st_ino == rst.st_ino)
		return cai_fail(err, EINVAL, "nothing can be mounted on the root directory");
	if (S_ISDIR(st.st_mode) != S_ISDIR(tst.st_mode) || S_ISLNK(tst.st_mode))
		return cai_fail(err, ENOTDIR, "a file and a directory cannot be mounted on each other: %.200s", m->target);
	if (move_mount_to(fd, target) < 0)
		return cai_fail_errno(err, errno, "cannot mount on %.200s", m->target);
	return 0;
}

int mounts_make(int root, const struct agent_setup *m, struct cai_error *err)
{
	for (unsigned i = 0; i < m->n_mounts; i++)
		if (make_one(root, &m->mount[i], err) < 0)
			return -1;
	return 0;
}
