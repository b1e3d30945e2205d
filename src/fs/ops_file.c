/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: open files.
 *
 * The guest's page cache is dropped at each open, unless the file is as it was when the guest last opened it and the guest has
 * not written since: then its pages are as good as ours. A time stamp too fresh to tell two writes apart does not count.
 *
 * O_APPEND is a property of each write, since a program may turn it on and off: RWF_APPEND puts the bytes at the end that the
 * file has on the host, whatever the guest thinks.
 */
#include "fs/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define FRESH_SEC  2 /* a file changed this recently may change again without its time stamps showing it */
#define FALLOCATES (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)

static bool same_time(const struct statx_timestamp *a, const struct statx_timestamp *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* May the guest keep the pages it has of i? Remembers the file as it is. */
static bool unchanged(struct inode *i, int fd)
{
	struct statx st;
	struct timespec now;
	bool was_seen = i->seen;
	i->seen = false;
	if (statx(fd, "", AT_EMPTY_PATH, INODE_STATX, &st) < 0 || clock_gettime(CLOCK_REALTIME_COARSE, &now) < 0)
		return false;
	bool same = was_seen && same_time(&st.stx_mtime, &i->seen_mtime) && same_time(&st.stx_ctime, &i->seen_ctime) &&
		    st.stx_size == i->seen_size;
	i->seen = st.stx_ctime.tv_sec + FRESH_SEC < now.tv_sec;
	i->seen_mtime = st.stx_mtime;
	i->seen_ctime = st.stx_ctime;
	i->seen_size = st.stx_size;
	return same && i->seen;
}

void fs_fill_open(struct fs_server *s, struct inode *i, int fd, uint64_t fh, bool may_keep, struct fuse_open_out *o)
{
	*o = (struct fuse_open_out){.fh = fh};
	if (may_keep && unchanged(i, fd))
		o->open_flags |= FOPEN_KEEP_CACHE;
	else if (!may_keep)
		i->seen = false;
}

int fs_open(struct fs_call *c)
{
	struct fuse_open_in in;
	struct fuse_open_out o;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	if (c->inode->type == S_IFDIR)
		return -EISDIR;
	int flags = (int)(in.flags & (O_ACCMODE | O_TRUNC | O_DSYNC | O_SYNC | O_DIRECT | O_NOATIME));
	if (c->s->opt.readonly && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
		return -EROFS;
	if (!c->s->n_free)
		return -ENFILE;
	int fd = fs_reopen(c->s, c->inode, flags);
	if (fd == -EPERM && (flags & O_NOATIME))
		fd = fs_reopen(c->s, c->inode, flags & ~O_NOATIME);
	if (fd < 0)
		return fd;
	uint64_t fh = fs_handle_add(c->s, c->inode, fd, flags, false);
	fs_fill_open(c->s, c->inode, fd, fh, !(flags & O_TRUNC), &o);
	return fs_give(c, &o, sizeof(o));
}

int fs_read(struct fs_call *c)
{
	struct fuse_read_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	if (in.offset > INT64_MAX)
		return -EINVAL;
	size_t n = in.size < FS_MAX_IO ? in.size : FS_MAX_IO;
	ssize_t r;
	do
		r = pread(h->fd, c->out, n, (off_t)in.offset);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	c->out_len = (size_t)r;
	return 0;
}

int fs_write(struct fs_call *c)
{
	struct fuse_write_in in;
	struct fuse_write_out o = {0};
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	if (in.size > c->left || in.offset > INT64_MAX)
		return -EINVAL;
	bool append = (in.flags & O_APPEND) && !(in.write_flags & FUSE_WRITE_CACHE);
	h->inode->seen = false;
	while (o.size < in.size) {
		struct iovec iov = {.iov_base = (void *)(uintptr_t)(c->p + o.size), .iov_len = in.size - o.size};
		ssize_t r = pwritev2(h->fd, &iov, 1, (off_t)(in.offset + o.size), append ? RWF_APPEND : 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			if (o.size)
				break;
			return r < 0 ? -errno : -EIO;
		}
		o.size += (uint32_t)r;
	}
	return fs_give(c, &o, sizeof(o));
}

int fs_release(struct fs_call *c)
{
	struct fuse_release_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	fs_handle_close(c->s, h);
	return 0;
}

int fs_fsync(struct fs_call *c)
{
	struct fuse_fsync_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	if (c->s->opt.readonly)
		return 0;
	return (in.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;
}

int fs_fallocate(struct fs_call *c)
{
	struct fuse_fallocate_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	if (in.mode & ~(uint32_t)FALLOCATES)
		return -EOPNOTSUPP;
	if (in.offset > INT64_MAX || in.length > INT64_MAX)
		return -EFBIG;
	h->inode->seen = false;
	return fallocate(h->fd, (int)in.mode, (off_t)in.offset, (off_t)in.length) < 0 ? -errno : 0;
}

int fs_lseek(struct fs_call *c)
{
	struct fuse_lseek_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, false);
	if (!h)
		return -EBADF;
	if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE)
		return -EINVAL;
	if (in.offset > INT64_MAX)
		return -ENXIO;
	off_t r = lseek(h->fd, (off_t)in.offset, (int)in.whence);
	if (r < 0)
		return -errno;
	struct fuse_lseek_out o = {.offset = (uint64_t)r};
	return fs_give(c, &o, sizeof(o));
}

int fs_copy_file_range(struct fs_call *c)
{
	struct fuse_copy_file_range_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *from = fs_handle_get(c->s, in.fh_in, false), *to = fs_handle_get(c->s, in.fh_out, false);
	if (!from || !to)
		return -EBADF;
	if (in.off_in > INT64_MAX || in.off_out > INT64_MAX || in.flags)
		return -EINVAL;
	off_t off_in = (off_t)in.off_in, off_out = (off_t)in.off_out;
	/* A piece at a time: others wait for this server meanwhile. */
	size_t n = in.len < 16 * FS_MAX_IO ? (size_t)in.len : 16 * FS_MAX_IO;
	to->inode->seen = false;
	ssize_t r = copy_file_range(from->fd, &off_in, to->fd, &off_out, n, 0);
	if (r < 0)
		return -errno;
	struct fuse_write_out o = {.size = (uint32_t)r};
	return fs_give(c, &o, sizeof(o));
}
