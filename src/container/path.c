/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: every name that lies in the container's root belongs to the image or to an earlier container, so it may be a symbolic link
 * to anywhere. Names are therefore resolved by openat2() with RESOLVE_IN_ROOT (".." and absolute links end at the container's root) and without
 * magic links (/proc/PID/fd/N, root, exe), once, to a descriptor; work is done on that descriptor. What the engine itself mounts (/proc, /sys,
 * /dev) accepts no link at all: an image whose /dev is one is not an image but an attempt.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "container/internal.h"

#define MAX_PATH  4096
#define MAX_TRIES 32

static int open_how(int root, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve | RESOLVE_NO_MAGICLINKS};
	for (int i = 0; i < MAX_TRIES; i++) {
		int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
		/* EAGAIN: something was renamed meanwhile, so the kernel could not be sure that the root was not left. */
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			return fd;
	}
	return -1;
}

int inroot_open(int root, const char *path, int flags)
{
	return open_how(root, path, flags, RESOLVE_IN_ROOT);
}

int inroot_own_dir(int root, const char *name, struct cai_error *err)
{
	for (int pass = 0; pass < 2; pass++) {
		int fd = open_how(root, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
		if (fd >= 0)
			return fd;
		if (errno == ELOOP || errno == ENOTDIR)
			return cai_fail(err, errno, "/%s in the image is a symbolic link or a file instead of a directory, so nothing is mounted there", name);
		if (errno != ENOENT || (mkdirat(root, name, 0755) < 0 && errno != EEXIST))
			return cai_fail_errno(err, errno, "cannot open /%s in the image", name);
	}
	return cai_fail(err, ENOENT, "cannot make /%s in the image", name);
}

/* The next component of *path: copies it, moves *path behind it. 0 at the end, -1 for "..", or one that is too long. */
static int component(const char **path, char *name, size_t size)
{
	while (**path == '/')
		(*path)++;
	size_t n = strcspn(*path, "/");
	if (n >= size || (n == 2 && !strncmp(*path, "..", 2)))
		return errno = EINVAL, -1;
	memcpy(name, *path, n);
	name[n] = 0;
	*path += n;
	return n != 0;
}

/* Walks to the directory that is to hold path's last component and gives that component. The walk is by ever longer names from the root, never
 * from an inner directory: so a link to "/x" on the way means the container's /x. */
static int walk(int root, const char *path, char *last, size_t size, struct cai_error *err)
{
	const char *rest = path;
	char prefix[MAX_PATH] = "", name[256];
	cleanup_close int dir = open_how(root, ".", O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
	if (dir < 0)
		return cai_fail_errno(err, errno, "cannot open the container's root");
	int r = component(&rest, name, sizeof(name));
	if (r <= 0)
		return cai_fail(err, EINVAL, "%.200s is no place to mount at", path);
	for (;;) {
		char next[256];
		r = component(&rest, next, sizeof(next));
		if (r < 0)
			return cai_fail(err, EINVAL, "%.200s is no place to mount at: give an absolute path without \"..\"", path);
		if (r == 0)
			break;
		if (strlen(prefix) + strlen(name) + 2 > sizeof(prefix))
			return cai_fail(err, ENAMETOOLONG, "%.200s... is too long", path);
		strcat(prefix, "/");
		strcat(prefix, name);
		int fd = open_how(root, prefix, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
		if (fd < 0 && errno == ENOENT) {
			if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
				return cai_fail_errno(err, errno, "cannot make %.200s in the container", prefix);
			fd = open_how(root, prefix, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
		}
		if (fd < 0)
			return cai_fail_errno(err, errno, "cannot open %.200s in the container", prefix);
		close(dir);
		dir = fd;
		strcpy(name, next);
	}
	if (strlen(name) >= size)
		return cai_fail(err, ENAMETOOLONG, "%.200s is too long", path);
	strcpy(last, name);
	return steal_fd(&dir);
}

static int make_and_open(int root, const char *path, bool file, struct cai_error *err)
{
	int flags = O_PATH | (file ? 0 : O_DIRECTORY);
	int fd = inroot_open(root, path, flags);
	if (fd >= 0 || errno != ENOENT)
		return fd >= 0 ? fd : cai_fail_errno(err, errno, "cannot open %.200s in the container", path);
	char last[256];
	cleanup_close int dir = walk(root, path, last, sizeof(last), err);
	if (dir < 0)
		return -1;
	if (file) {
		int made = openat(dir, last, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (made >= 0)
			close(made);
		else if (errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make %.200s in the container", path);
	} else if (mkdirat(dir, last, 0755) < 0 && errno != EEXIST) {
		return cai_fail_errno(err, errno, "cannot make %.200s in the container", path);
	}
	fd = inroot_open(root, path, flags);
	return fd >= 0 ? fd : cai_fail_errno(err, errno, "cannot open %.200s in the container", path);
}

int inroot_make_dirs(int root, const char *path, struct cai_error *err)
{
	return make_and_open(root, path, false, err);
}

int inroot_make_file(int root, const char *path, struct cai_error *err)
{
	return make_and_open(root, path, true, err);
}

int inroot_write(int root, const char *dir_path, const char *name, const char *text, struct cai_error *err)
{
	cleanup_close int dir = inroot_make_dirs(root, dir_path, err);
	if (dir < 0)
		return -1;
	/* Never through what is there, which may be a link, a FIFO that blocks, or a device. */
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return cai_fail_errno(err, errno, "cannot replace %s/%s in the container", dir_path, name);
	cleanup_close int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || file_write_full(fd, text, strlen(text)) < 0)
		return cai_fail_errno(err, errno, "cannot write %s/%s in the container", dir_path, name);
	return 0;
}
