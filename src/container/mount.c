/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a mount is made detached, as a descriptor (fsopen, fsmount, open_tree), given its flags, and only then put onto another
 * descriptor. No name is looked up twice, so nothing that somebody exchanges between two look-ups can redirect a mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/internal.h"

/* The kernel explains a refused file system in messages behind the context's descriptor: "e overlay: ...". */
static int refused(int ctx, int errnum, const char *type, struct cai_error *err)
{
	char text[200];
	ssize_t n = read(ctx, text, sizeof(text) - 1);
	if (n <= 2)
		return cai_fail_errno(err, errnum, "cannot mount %s", type);
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return cai_fail_errno(err, errnum, "cannot mount %s (%s)", type, text + 2);
}

int mount_new(const char *type, const struct mount_option *options, unsigned n, unsigned attr, struct cai_error *err)
{
	cleanup_close int ctx = fsopen(type, FSOPEN_CLOEXEC);
	if (ctx < 0)
		return errno == ENODEV  ? cai_fail(err, errno, "the host's kernel has no file system %s", type)
		       : errno == ENOSYS ? cai_fail(err, errno, "the host's kernel is older than 5.12, which the container engine needs")
					 : cai_fail_errno(err, errno, "cannot mount %s", type);
	for (unsigned i = 0; i < n; i++)
		if (fsconfig(ctx, options[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[i].key, options[i].value, 0) < 0)
			return refused(ctx, errno, type, err);
	if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return refused(ctx, errno, type, err);
	int fd = fsmount(ctx, FSMOUNT_CLOEXEC, attr);
	return fd < 0 ? refused(ctx, errno, type, err) : fd;
}

int mount_clone(int dirfd, const char *path, bool recursive)
{
	return open_tree(dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (*path ? 0 : AT_EMPTY_PATH) | (recursive ? AT_RECURSIVE : 0));
}

int mount_change(int fd, uint64_t set, int userns_fd, bool recursive)
{
	struct mount_attr a = {.attr_set = set};
	if (userns_fd >= 0) {
		a.attr_set |= MOUNT_ATTR_IDMAP;
		a.userns_fd = (uint64_t)userns_fd;
	}
	return mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &a, sizeof(a));
}

int mount_attach(int fd, int target, struct cai_error *err)
{
	if (move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return cai_fail_errno(err, errno, "cannot attach a mount");
	return 0;
}

int mount_attach_at(int fd, const char *host_path)
{
	return move_mount(fd, "", AT_FDCWD, host_path, MOVE_MOUNT_F_EMPTY_PATH);
}
