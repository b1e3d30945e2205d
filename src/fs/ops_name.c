/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: names in directories.
 *
 * Every call names an entry by the descriptor of its directory and one checked name, and none follows a link: AT_SYMLINK_NOFOLLOW,
 * O_NOFOLLOW, or a call that never does. What the guest asks about is looked at again after it was made, by name: should the host
 * have put something else there meanwhile, the guest is told of that.
 *
 * The guest asks for a file's name anew each time it walks a path, and gets the attributes with it, so that what it opens or examines
 * by name is always what the host has now. Names of directories it may use for a while, which saves most of the questions, and so
 * it may what a listing gave.
 */
#include "fs/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* The descriptor of the directory that the request is about. */
static int dir_fd(struct fs_call *c)
{
	if (c->inode->type != S_IFDIR)
		return -ENOTDIR;
	return inode_fd(&c->s->inodes, c->inode);
}

static int stat_name(int dir, const char *name, struct statx *st)
{
	return statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, INODE_STATX, st) < 0 ? -errno : 0;
}

static struct inode *known(struct fs_server *s, int dir, const char *name)
{
	struct statx st;
	return stat_name(dir, name, &st) == 0 ? inode_find(&s->inodes, &st) : NULL;
}

int fs_fill_entry(struct fs_server *s, struct inode *parent, const char *name, const struct statx *st, struct fuse_entry_out *e)
{
	int err;
	struct inode *i = inode_note(&s->inodes, parent, name, st, &err);
	if (!i)
		return err;
	i->lookups++;
	*e = (struct fuse_entry_out){.nodeid = i->id};
	fs_timeout(s, &e->entry_valid, &e->entry_valid_nsec);
	e->attr_valid = e->entry_valid;
	e->attr_valid_nsec = e->entry_valid_nsec;
	fs_fill_attr(st, &e->attr);
	return 0;
}

/* The reply to whatever found or made name. */
static int give_entry(struct fs_call *c, int dir, const char *name)
{
	struct statx st;
	struct fuse_entry_out e;
	int r = stat_name(dir, name, &st);
	if (r == 0)
		r = fs_fill_entry(c->s, c->inode, name, &st, &e);
	if (r < 0)
		return r;
	if ((st.stx_mode & S_IFMT) != S_IFDIR)
		e.entry_valid = e.entry_valid_nsec = 0;
	return fs_give(c, &e, sizeof(e));
}

int fs_lookup(struct fs_call *c)
{
	const char *name;
	int r = fs_take_name(c, &name);
	int dir = r < 0 ? r : dir_fd(c);
	return dir < 0 ? dir : give_entry(c, dir, name);
}

int fs_mknod(struct fs_call *c)
{
	struct fuse_mknod_in in;
	const char *name;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	int r = fs_take_name(c, &name);
	int dir = r < 0 ? r : dir_fd(c);
	if (dir < 0)
		return dir;
	/* Devices are the host's. */
	mode_t type = in.mode & S_IFMT;
	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != 0)
		return -EPERM;
	r = fs_become_caller(c);
	if (r < 0)
		return r;
	r = mknodat(dir, name, in.mode & (S_IFMT | 07777), 0) < 0 ? -errno : 0;
	fs_become_self(c);
	return r < 0 ? r : give_entry(c, dir, name);
}

int fs_mkdir(struct fs_call *c)
{
	struct fuse_mkdir_in in;
	const char *name;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	int r = fs_take_name(c, &name);
	int dir = r < 0 ? r : dir_fd(c);
	if (dir < 0 || (r = fs_become_caller(c)) < 0)
		return dir < 0 ? dir : r;
	r = mkdirat(dir, name, in.mode & 07777) < 0 ? -errno : 0;
	fs_become_self(c);
	return r < 0 ? r : give_entry(c, dir, name);
}

int fs_symlink(struct fs_call *c)
{
	const char *name, *target;
	int r = fs_take_name(c, &name);
	if (r < 0)
		return r;
	target = fs_take_string(c);
	if (!target || !*target)
		return -EINVAL;
	int dir = dir_fd(c);
	if (dir < 0 || (r = fs_become_caller(c)) < 0)
		return dir < 0 ? dir : r;
	r = symlinkat(target, dir, name) < 0 ? -errno : 0;
	fs_become_self(c);
	return r < 0 ? r : give_entry(c, dir, name);
}

int fs_link(struct fs_call *c)
{
	struct fuse_link_in in;
	const char *name;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	int r = fs_take_name(c, &name);
	if (r < 0)
		return r;
	struct inode *old = inode_get(&c->s->inodes, in.oldnodeid);
	if (!old)
		return -ESTALE;
	int dir = dir_fd(c), fd = dir < 0 ? dir : inode_fd(&c->s->inodes, old);
	if (fd < 0)
		return fd;
	/* Follows the link in /proc, which leads to the file itself even if that is a symbolic link. */
	if (linkat(c->s->opt.proc_fd, fs_fd_name(fd).s, dir, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return give_entry(c, dir, name);
}

static int remove_name(struct fs_call *c, int flags)
{
	const char *name;
	int r = fs_take_name(c, &name);
	int dir = r < 0 ? r : dir_fd(c);
	if (dir < 0)
		return dir;
	struct inode *i = known(c->s, dir, name);
	if (i)
		inode_pin(&c->s->inodes, i);
	return unlinkat(dir, name, flags) < 0 ? -errno : 0;
}

int fs_unlink(struct fs_call *c)
{
	return remove_name(c, 0);
}

int fs_rmdir(struct fs_call *c)
{
	return remove_name(c, AT_REMOVEDIR);
}

static int rename_to(struct fs_call *c, uint64_t newdir, unsigned flags)
{
	struct inodes *t = &c->s->inodes;
	struct inode *to = inode_get(t, newdir);
	const char *from_name, *to_name;
	int r = fs_take_name(c, &from_name);
	if (r == 0)
		r = fs_take_name(c, &to_name);
	if (r < 0)
		return r;
	if (!to)
		return -ESTALE;
	if (to->type != S_IFDIR)
		return -ENOTDIR;
	int from_fd = dir_fd(c), to_fd = from_fd < 0 ? from_fd : inode_fd(t, to);
	if (to_fd < 0)
		return to_fd;
	struct inode *moved = known(c->s, from_fd, from_name), *there = known(c->s, to_fd, to_name);
	if (there && there != moved && !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)))
		inode_pin(t, there);
	if (renameat2(from_fd, from_name, to_fd, to_name, flags) < 0)
		return -errno;
	/* Out of memory means no more than that the place is not known; it will be looked up again. */
	if (moved)
		inode_move(t, moved, to, to_name);
	if (there && (flags & RENAME_EXCHANGE))
		inode_move(t, there, c->inode, from_name);
	return 0;
}

int fs_rename(struct fs_call *c)
{
	struct fuse_rename_in in;
	return fs_take(c, &in, sizeof(in)) ? rename_to(c, in.newdir, 0) : -EINVAL;
}

int fs_rename2(struct fs_call *c)
{
	struct fuse_rename2_in in;
	if (!fs_take(c, &in, sizeof(in)) || (in.flags & ~(unsigned)(RENAME_EXCHANGE | RENAME_NOREPLACE)))
		return -EINVAL;
	return rename_to(c, in.newdir, in.flags);
}

int fs_readlink(struct fs_call *c)
{
	char target[PATH_MAX];
	if (c->inode->type != S_IFLNK)
		return -EINVAL;
	int fd = inode_fd(&c->s->inodes, c->inode);
	if (fd < 0)
		return fd;
	ssize_t n = readlinkat(fd, "", target, sizeof(target));
	return n < 0 ? -errno : fs_give(c, target, (size_t)n);
}

/* The flags of open(2) that the guest decides about. */
static int allowed_flags(uint32_t flags)
{
	return (int)(flags & (O_ACCMODE | O_TRUNC | O_DSYNC | O_SYNC | O_DIRECT | O_NOATIME));
}

int fs_create(struct fs_call *c)
{
	struct fuse_create_in in;
	const char *name;
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	int r = fs_take_name(c, &name);
	int dir = r < 0 ? r : dir_fd(c);
	if (dir < 0)
		return dir;
	int flags = allowed_flags(in.flags) & ~O_NOATIME;
	if ((r = fs_become_caller(c)) < 0)
		return r;
	int fd = openat(dir, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, in.mode & 07777);
	r = fd < 0 ? -errno : 0;
	fs_become_self(c);
	bool existed = r == -EEXIST && !(in.flags & O_EXCL);
	if (r < 0 && !existed)
		return r;

	struct fuse_entry_out e;
	struct fuse_open_out o;
	struct statx st;
	r = existed ? stat_name(dir, name, &st) : statx(fd, "", AT_EMPTY_PATH, INODE_STATX, &st) < 0 ? -errno : 0;
	if (r == 0)
		r = fs_fill_entry(c->s, c->inode, name, &st, &e);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	struct inode *i = inode_get(&c->s->inodes, e.nodeid);
	if (existed)
		fd = i->type == S_IFREG ? fs_reopen(c->s, i, flags) : -EEXIST;
	uint64_t fh = fd < 0 ? 0 : fs_handle_add(c->s, i, fd, flags, false);
	if (!fh) {
		inode_forget(&c->s->inodes, i, 1);
		return fd < 0 ? fd : -ENFILE;
	}
	e.entry_valid = e.entry_valid_nsec = 0;
	/* The attributes from before a truncation are not to be used. */
	if (existed)
		e.attr_valid = e.attr_valid_nsec = 0;
	fs_fill_open(c->s, i, fd, fh, false, &o);
	r = fs_give(c, &e, sizeof(e));
	return r < 0 ? r : fs_give(c, &o, sizeof(o));
}
