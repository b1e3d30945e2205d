/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: open directories.
 *
 * The position of an entry is the host's own (d_off), so a directory is read on after the guest has forgotten everything but that
 * number; any other number is the host's file system's to refuse. What getdents64(2) gave and did not fit into a reply is read
 * again for the next one.
 *
 * READDIRPLUS adds the attributes and a lookup of each entry, as many as the reply has room for. An entry that has gone
 * since, or that the table has no room for, goes without a node: the guest then looks it up by itself.
 */
#include "fs/server_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define DENTS_BYTES (64u << 10)

/* As the kernel gives it; glibc calls it struct dirent64. */
struct entry {
	uint64_t d_ino;
	int64_t d_off;
	uint16_t d_reclen;
	uint8_t d_type;
	char d_name[];
};

int fs_opendir(struct fs_call *c)
{
	struct fuse_open_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	if (c->inode->type != S_IFDIR)
		return -ENOTDIR;
	if (!c->s->n_free)
		return -ENFILE;
	int fd = fs_reopen(c->s, c->inode, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	struct fuse_open_out o = {.fh = fs_handle_add(c->s, c->inode, fd, O_RDONLY | O_DIRECTORY, true)};
	return fs_give(c, &o, sizeof(o));
}

int fs_releasedir(struct fs_call *c)
{
	struct fuse_release_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, true);
	if (!h)
		return -EBADF;
	fs_handle_close(c->s, h);
	return 0;
}

int fs_fsyncdir(struct fs_call *c)
{
	struct fuse_fsync_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, true);
	if (!h)
		return -EBADF;
	return !c->s->opt.readonly && fsync(h->fd) < 0 ? -errno : 0;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* The entry's node and attributes, where it can have them. */
static void look_up(struct fs_call *c, const struct fs_handle *h, const struct entry *d, struct fuse_entry_out *e)
{
	struct statx st;
	*e = (struct fuse_entry_out){.attr = {.ino = d->d_ino, .mode = (uint32_t)d->d_type << 12}};
	if (is_dot(d->d_name) || statx(h->fd, d->d_name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, INODE_STATX, &st) < 0)
		return;
	if (fs_fill_entry(c->s, h->inode, d->d_name, &st, e) < 0)
		*e = (struct fuse_entry_out){.attr = {.ino = d->d_ino, .mode = (uint32_t)d->d_type << 12}};
}

/* Appends one entry; false when it does not fit into room bytes. */
static bool give_entry(struct fs_call *c, const struct fs_handle *h, const struct entry *d, bool plus, size_t room)
{
	size_t name_len = strlen(d->d_name), head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	size_t size = FUSE_DIRENT_ALIGN(head + name_len);
	if (size > room - c->out_len)
		return false;
	struct fuse_dirent de = {.ino = d->d_ino, .off = (uint64_t)d->d_off, .namelen = (uint32_t)name_len, .type = d->d_type};
	uint8_t *to = c->out + c->out_len;
	memset(to, 0, size);
	if (plus) {
		struct fuse_entry_out e;
		look_up(c, h, d, &e);
		memcpy(to, &e, sizeof(e));
		memcpy(to + sizeof(e), &de, offsetof(struct fuse_dirent, name));
	} else {
		memcpy(to, &de, offsetof(struct fuse_dirent, name));
	}
	memcpy(to + head, d->d_name, name_len);
	c->out_len += size;
	return true;
}

static int read_dir(struct fs_call *c, bool plus)
{
	struct fuse_read_in in;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	struct fs_handle *h = fs_handle_get(c->s, in.fh, true);
	if (!h)
		return -EBADF;
	size_t room = in.size < FS_MAX_IO ? in.size : FS_MAX_IO;
	off_t end = (off_t)in.offset;
	if (end != h->pos && lseek(h->fd, end, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		h->pos = -1;
		/* No more than will be given, roughly: what is left over is read twice. */
		size_t left = room - c->out_len, want = plus ? left / 5 + 280 : left;
		ssize_t got = syscall(SYS_getdents64, h->fd, c->s->dents, want > DENTS_BYTES ? DENTS_BYTES : want < 280 ? 280 : want);
		if (got < 0)
			return c->out_len ? 0 : -errno;
		if (got == 0) {
			h->pos = end;
			return 0;
		}
		for (ssize_t at = 0; at < got;) {
			const struct entry *d = (const struct entry *)(const void *)(c->s->dents + at);
			if (!give_entry(c, h, d, plus, room))
				return c->out_len ? 0 : -EINVAL;
			at += d->d_reclen;
			if (at == got)
				h->pos = end = d->d_off;
		}
	}
}

int fs_readdir(struct fs_call *c)
{
	return read_dir(c, false);
}

int fs_readdirplus(struct fs_call *c)
{
	return read_dir(c, true);
}
