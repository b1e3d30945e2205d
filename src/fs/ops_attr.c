/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: attributes.
 *
 * Of extended attributes only "user." is passed on: the others mean something to the host (security.capability gives powers,
 * trusted. and system. are its own), and a guest must not decide about them.
 *
 * A change of owner comes before one of mode, because it clears set-id bits that the mode may set.
 */
#include "fs/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"

#define MAX_XATTR_VALUE (64u << 10)
#define MAX_XATTR_NAME  255u
#define XATTR_IN_COMPAT 8 /* setxattr_in of a guest without FUSE_SETXATTR_EXT */

void fs_fill_attr(const struct statx *st, struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (uint64_t)st->stx_atime.tv_sec,
		.mtime = (uint64_t)st->stx_mtime.tv_sec,
		.ctime = (uint64_t)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = st->stx_uid,
		.gid = st->stx_gid,
		.rdev = (uint32_t)makedev(st->stx_rdev_major, st->stx_rdev_minor),
		.blksize = st->stx_blksize,
	};
}

static int give_attr(struct fs_call *c, const struct fs_handle *h)
{
	struct statx st;
	struct fuse_attr_out o = {0};
	int r = h ? statx(h->fd, "", AT_EMPTY_PATH, INODE_STATX, &st) < 0 ? -errno : 0 : inode_stat(&c->s->inodes, c->inode, &st);
	if (r < 0)
		return r;
	fs_timeout(c->s, &o.attr_valid, &o.attr_valid_nsec);
	fs_fill_attr(&st, &o.attr);
	return fs_give(c, &o, sizeof(o));
}

/* A handle that names the request's own node. */
static struct fs_handle *own_handle(struct fs_call *c, uint64_t fh)
{
	struct fs_handle *h = fs_handle_get(c->s, fh, c->inode->type == S_IFDIR);
	return h && h->inode == c->inode ? h : NULL;
}

int fs_getattr(struct fs_call *c)
{
	struct fuse_getattr_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	return give_attr(c, in.getattr_flags & FUSE_GETATTR_FH ? own_handle(c, in.fh) : NULL);
}

static int set_owner(int fd, const struct fuse_setattr_in *in)
{
	uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return errno == EINVAL ? -EPERM : -errno; /* an id that this process's user namespace does not have */
}

static int set_mode(struct fs_call *c, int fd, uint32_t mode)
{
	if (c->inode->type == S_IFLNK)
		return -EOPNOTSUPP;
	fs_raise_fsetid(c->s, true);
	int r = chmod(fs_fd_name(fd).s, mode & 07777) < 0 ? -errno : 0;
	fs_raise_fsetid(c->s, false);
	return r;
}

static int set_size(struct fs_call *c, const struct fuse_setattr_in *in, const struct fs_handle *h)
{
	if (c->inode->type != S_IFREG)
		return c->inode->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (in->size > INT64_MAX)
		return -EFBIG;
	c->inode->seen = false;
	if (h && ftruncate(h->fd, (off_t)in->size) == 0)
		return 0;
	/* No handle, or one for reading only: truncate(2) asks for no more than the permission, which the guest has checked. */
	int fd = fs_reopen(c->s, c->inode, O_WRONLY);
	if (fd < 0)
		return fd;
	int r = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static struct timespec time_of(const struct fuse_setattr_in *in, uint32_t set, uint32_t now, uint64_t sec, uint32_t nsec)
{
	if (!(in->valid & set))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (in->valid & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	/* The two largest numbers of nanoseconds mean something else. */
	return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = nsec > 999999999 ? 0 : (long)nsec};
}

int fs_setattr(struct fs_call *c)
{
	struct fuse_setattr_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = in.valid & FATTR_FH ? own_handle(c, in.fh) : NULL;
	int r = 0;
	if (in.valid & FATTR_SIZE)
		r = set_size(c, &in, h);
	/* After whatever opens descriptors, so that this one is still good. */
	int fd = inode_fd(&c->s->inodes, c->inode);
	if (fd < 0)
		return fd;
	if (r == 0 && in.valid & (FATTR_UID | FATTR_GID))
		r = set_owner(fd, &in);
	if (r == 0 && in.valid & FATTR_MODE)
		r = set_mode(c, fd, in.mode);
	if (r == 0 && in.valid & (FATTR_ATIME | FATTR_MTIME)) {
		struct timespec ts[2] = {time_of(&in, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
					 time_of(&in, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
		r = utimensat(fd, "", ts, AT_EMPTY_PATH) < 0 ? -errno : 0;
	}
	return r < 0 ? r : give_attr(c, h);
}

int fs_statfs(struct fs_call *c)
{
	struct statfs st;
	int fd = inode_fd(&c->s->inodes, c->inode);
	if (fd < 0)
		return fd;
	if (fstatfs(fd, &st) < 0)
		return -errno;
	struct fuse_statfs_out o = {.st = {
					    .blocks = st.f_blocks,
					    .bfree = st.f_bfree,
					    .bavail = st.f_bavail,
					    .files = st.f_files,
					    .ffree = st.f_ffree,
					    .bsize = (uint32_t)st.f_bsize,
					    .namelen = (uint32_t)st.f_namelen,
					    .frsize = (uint32_t)st.f_frsize,
				    }};
	return fs_give(c, &o, sizeof(o));
}

/* Takes the attribute's name, and finds the file's. 0 or a negative errno. */
static int xattr_target(struct fs_call *c, const char **name, struct fs_fd_name *file)
{
	*name = fs_take_string(c);
	if (!*name)
		return -EINVAL;
	if (strncmp(*name, "user.", 5) || strlen(*name) > MAX_XATTR_NAME || (c->inode->type != S_IFREG && c->inode->type != S_IFDIR))
		return -EOPNOTSUPP;
	int fd = inode_fd(&c->s->inodes, c->inode);
	if (fd >= 0)
		*file = fs_fd_name(fd);
	return fd < 0 ? fd : 0;
}

int fs_getxattr(struct fs_call *c)
{
	struct fuse_getxattr_in in;
	struct fs_fd_name file;
	const char *name;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	int r = xattr_target(c, &name, &file);
	if (r < 0)
		return r;
	size_t room = in.size < MAX_XATTR_VALUE ? in.size : MAX_XATTR_VALUE;
	ssize_t n = getxattr(file.s, name, room ? c->out : NULL, room);
	if (n < 0)
		return -errno;
	if (room) {
		c->out_len = (size_t)n;
		return 0;
	}
	struct fuse_getxattr_out o = {.size = (uint32_t)n};
	return fs_give(c, &o, sizeof(o));
}

int fs_setxattr(struct fs_call *c)
{
	struct fuse_setxattr_in in = {0};
	struct fs_fd_name file;
	const char *name;
	if (!fs_take(c, &in, XATTR_IN_COMPAT))
		return -EINVAL;
	int r = xattr_target(c, &name, &file);
	if (r < 0)
		return r;
	if (in.size > MAX_XATTR_VALUE)
		return -E2BIG;
	if (in.size > c->left || (in.flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE)))
		return -EINVAL;
	return setxattr(file.s, name, c->p, in.size, (int)in.flags) < 0 ? -errno : 0;
}

int fs_removexattr(struct fs_call *c)
{
	struct fs_fd_name file;
	const char *name;
	int r = xattr_target(c, &name, &file);
	return r < 0 ? r : removexattr(file.s, name) < 0 ? -errno : 0;
}

int fs_listxattr(struct fs_call *c)
{
	struct fuse_getxattr_in in;
	char all[MAX_XATTR_VALUE];
	size_t n = 0;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	if (c->inode->type == S_IFREG || c->inode->type == S_IFDIR) {
		int fd = inode_fd(&c->s->inodes, c->inode);
		ssize_t got = fd < 0 ? fd : listxattr(fs_fd_name(fd).s, all, sizeof(all));
		if (got < 0)
			return fd < 0 ? fd : -errno;
		for (ssize_t at = 0; at < got;) {
			size_t len = strnlen(all + at, (size_t)(got - at)) + 1;
			if (!strncmp(all + at, "user.", 5) && at + (ssize_t)len <= got) {
				memmove(all + n, all + at, len);
				n += len;
			}
			at += (ssize_t)len;
		}
	}
	struct fuse_getxattr_out o = {.size = (uint32_t)n};
	if (!in.size)
		return fs_give(c, &o, sizeof(o));
	return n > in.size ? -ERANGE : fs_give(c, all, n);
}
