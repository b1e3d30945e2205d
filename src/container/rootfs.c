/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root file system.
 *
 * Theory of operation: the image (an EROFS file, or a directory) is the overlay's lower layer, a host directory or a tmpfs the upper. Kernels before
 * 6.15 take only attached mounts as layers, so each is stacked onto one directory of the host's that always exists, in this mount namespace
 * which nobody else sees; pivot_root then leaves all of that behind. Layers are named to the overlay as /proc/self/fd/N, so no character
 * of a path can be taken for an option.
 *
 * With a user namespace, the lower layer and an upper one on disk are idmapped: on disk the container's root is 0, in the kernel uid_base. A tmpfs
 * upper holds the kernel's ids as they are. From here on files are made as uid_base (fsuid), keeping capabilities.
 *
 * The root is mounted nodev and nosuid: a device node in an image, or one made by the container (CAP_MKNOD is in docker's set), opens nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "container/internal.h"

/* Any directory will do that is neither /proc nor where volumes or images come from later: those are open by now. */
static int stage(int fd, struct cai_error *err)
{
	static const char *const places[] = {"/sys", "/run", "/tmp", "/dev", "/usr"};
	for (unsigned i = 0; i < ARRAY_LEN(places); i++)
		if (mount_attach_at(fd, places[i]) == 0)
			return 0;
	return cai_fail_errno(err, errno, "cannot stack a layer of the root");
}

/* Maps a layer into the container's user namespace; a file system that cannot be is the caller's cue to do without. */
static int idmap(struct child *c, int fd, const char *what, struct cai_error *err)
{
	if (c->userns_fd < 0 || mount_change(fd, 0, c->userns_fd, false) == 0)
		return 0;
	c->report.no_idmap = errno == EINVAL || errno == ENOSYS || errno == EPERM;
	return cai_fail_errno(err, errno, "%s cannot be mapped into a user namespace", what);
}

static int mount_image(struct child *c, struct cai_error *err)
{
	char source[64];
	snprintf(source, sizeof(source), "/proc/self/fd/%d", c->spec->image_fd);
	struct mount_option options[] = {{"source", source}, {"ro", NULL}};
	cleanup_close int device = -1;
	unsigned attr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
	int fd = mount_new("erofs", options, ARRAY_LEN(options), attr, err);
	if (fd < 0 && err->errnum == ENOTBLK) {
		device = loop_attach(c->spec->image_fd, source, sizeof(source), err);
		if (device < 0)
			return -1;
		fd = mount_new("erofs", options, ARRAY_LEN(options), attr, err);
	}
	return fd < 0 ? cai_wrap(err, "the image") : fd;
}

static int lower_layer(struct child *c, struct cai_error *err)
{
	const struct container_spec *s = c->spec;
	cleanup_close int fd = -1;
	if (s->image_fd >= 0) {
		fd = mount_image(c, err);
	} else {
		fd = mount_clone(AT_FDCWD, s->rootfs_dir, c->rootless);
		if (fd < 0)
			cai_fail_errno(err, errno, "cannot use the directory %s as a root", s->rootfs_dir);
		else if (mount_change(fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, -1, c->rootless) < 0)
			return cai_fail_errno(err, errno, "cannot make the directory %s read-only", s->rootfs_dir);
	}
	if (fd < 0 || idmap(c, fd, "the image's file system", err) < 0 || stage(fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int upper_layer(struct child *c, struct cai_error *err)
{
	const struct container_spec *s = c->spec;
	cleanup_close int fd = -1;
	if (s->upper_dir) {
		fd = mount_clone(AT_FDCWD, s->upper_dir, false);
		if (fd < 0)
			return cai_fail_errno(err, errno, "cannot use %s for the container's changes", s->upper_dir);
		if (idmap(c, fd, "the file system of the container's changes", err) < 0)
			return -1;
	} else {
		char size[32];
		struct mount_option options[] = {{"mode", "0700"}, {"size", size}};
		snprintf(size, sizeof(size), "%llu", (unsigned long long)s->tmpfs_size);
		fd = mount_new("tmpfs", options, s->tmpfs_size ? 2 : 1, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, err);
	}
	if (fd < 0 || stage(fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

/* upper/ and work/; the root directory's own mode is the image's. */
static int make_dirs(int upper, int lower, struct cai_error *err)
{
	struct stat st;
	static const char *const names[] = {"upper", "work"};
	if (fstat(lower, &st) < 0)
		return cai_fail_errno(err, errno, "cannot read the image's root directory");
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (mkdirat(upper, names[i], 0755) == 0) {
			if (i == 0 && (st.st_mode & 07777) != 0755 && fchmodat(upper, names[i], st.st_mode & 07777, 0) < 0)
				return cai_fail_errno(err, errno, "cannot set the mode of the container's root directory");
			continue;
		}
		struct stat there;
		if (errno != EEXIST || fstatat(upper, names[i], &there, AT_SYMLINK_NOFOLLOW) < 0)
			return cai_fail_errno(err, errno, "cannot make the directory %s for the container's changes", names[i]);
		if (!S_ISDIR(there.st_mode))
			return cai_fail(err, ENOTDIR, "%s, which holds the container's changes, is no directory", names[i]);
	}
	return 0;
}

/* The kernel's mark on a layer whose changes were never brought to the disk in full. Those that are thrown away anyway may be used again. */
static void forget_volatile(int upper)
{
	unlinkat(upper, "work/work/incompat/volatile/dirty", 0);
	unlinkat(upper, "work/work/incompat/volatile", AT_REMOVEDIR);
	unlinkat(upper, "work/work/incompat", AT_REMOVEDIR);
}

int rootfs_make(struct child *c, struct cai_error *err)
{
	struct statfs fs;
	if (statfs("/proc/self", &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
		return cai_fail(err, ENOENT, "/proc is not mounted on this host, and the container engine needs it");
	cleanup_close int lower = lower_layer(c, err);
	if (lower < 0)
		return -1;
	if (c->uid_base) {
		setfsgid(c->uid_base);
		setfsuid(c->uid_base);
	}
	cleanup_close int upper = upper_layer(c, err);
	if (upper < 0 || make_dirs(upper, lower, err) < 0)
		return -1;
	if (c->spec->upper_dir && c->spec->discard)
		forget_volatile(upper);
	char lowerdir[64], upperdir[64], workdir[64];
	snprintf(lowerdir, sizeof(lowerdir), "/proc/self/fd/%d", lower);
	snprintf(upperdir, sizeof(upperdir), "/proc/self/fd/%d/upper", upper);
	snprintf(workdir, sizeof(workdir), "/proc/self/fd/%d/work", upper);
	struct mount_option options[9] = {{"source", "caisson"}, {"lowerdir", lowerdir}, {"upperdir", upperdir}, {"workdir", workdir}};
	unsigned n = 4;
	if (c->rootless) {
		options[n++] = (struct mount_option){"userxattr", NULL}; /* implies the next three */
	} else {
		/* Nothing in a layer may tell the overlay where to look: no redirects, no metadata-only copies. */
		options[n++] = (struct mount_option){"redirect_dir", "nofollow"};
		options[n++] = (struct mount_option){"metacopy", "off"};
		options[n++] = (struct mount_option){"index", "off"};
	}
	/* Else the end of the container would write all of the host's file system to its disk. */
	if (c->spec->discard || !c->spec->upper_dir)
		options[n++] = (struct mount_option){"volatile", NULL};
	c->root_fd = mount_new("overlay", options, n, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, err);
	if (c->root_fd < 0) {
		/* Before 5.19 an overlay took no idmapped layers. */
		c->report.no_idmap = c->userns_fd >= 0 && err->errnum == EINVAL;
		return -1;
	}
	return stage(c->root_fd, err);
}

int rootfs_enter(struct child *c, struct cai_error *err)
{
	if (c->spec->read_only && mount_change(c->root_fd, MOUNT_ATTR_RDONLY, -1, false) < 0)
		return cai_fail_errno(err, errno, "cannot make the root read-only");
	/* The old root ends up on top of the new one and is let go: no name for it is needed, and none remains. */
	if (fchdir(c->root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return cai_fail_errno(err, errno, "cannot enter the container's root");
	return 0;
}
