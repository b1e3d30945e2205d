/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: what a guest knows of its files, as records.
 *
 *   'R' root:   u64 ino, u64 dev
 *   'I' inode:  u64 id, u64 parent's id (0: none), u64 lookups, u64 ino, u64 dev, u64 birth seconds, u32 nanoseconds, u32 type, string name
 *   'H' handle: u64 number, u64 inode's id, u32 flags, u8 directory
 *
 * They come in the order of the tables, a parent perhaps after its children. So a load first makes all inodes, and when the last record
 * is there gives them their places and opens the handles. Records are as hostile as a snapshot is: ids, names and parents are
 * checked like a guest's, and whatever they say, files are found by name below the root and must be what they were.
 *
 * Device numbers of file systems may differ after a reboot; the root's is known, and taken for what it is now.
 *
 * A file that was deleted while it was open cannot be opened again: its handle is gone.
 */
#include "fs/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"

#define CHUNK       (256u << 10) /* a reply is complete when it is this long */
#define OPEN_FLAGS  (O_ACCMODE | O_DSYNC | O_SYNC | O_DIRECT | O_NOATIME)

struct fs_loading {
	uint64_t old_dev;
	uint32_t n_inodes, n_handles, room_inodes, room_handles;
	struct {
		struct inode *i;
		uint64_t parent;
		char *name; /* owned */
	} *inode;
	struct {
		uint64_t fh, inode;
		int flags;
		bool dir;
	} *handle;
};

static void free_loading(struct fs_server *s)
{
	struct fs_loading *l = s->loading;
	for (uint32_t k = 0; k < l->n_inodes; k++)
		free(l->inode[k].name);
	free(l->inode);
	free(l->handle);
	free(l);
	s->loading = NULL;
}

void fs_loading_abort(struct fs_server *s)
{
	if (!s->loading)
		return;
	/* Inodes that have no place yet are in no table but the slots'. */
	for (uint32_t k = 0; k < s->loading->n_inodes; k++)
		inode_place(&s->inodes, s->loading->inode[k].i, NULL, NULL);
	inodes_loaded(&s->inodes);
	free_loading(s);
}

static void put_root(const struct fs_server *s, struct buf *b)
{
	buf_put_u8(b, 'R');
	buf_put_u64(b, s->inodes.root.ino);
	buf_put_u64(b, s->inodes.root.dev);
}

static void put_inode(const struct inode *i, struct buf *b)
{
	buf_put_u8(b, 'I');
	buf_put_u64(b, i->id);
	buf_put_u64(b, i->parent ? i->parent->id : 0);
	buf_put_u64(b, i->lookups);
	buf_put_u64(b, i->ino);
	buf_put_u64(b, i->dev);
	buf_put_u64(b, (uint64_t)i->birth_sec);
	buf_put_u32(b, i->birth_nsec);
	buf_put_u32(b, i->type);
	buf_put_string(b, i->parent && i->name ? i->name : "");
}

static void put_handle(const struct fs_handle *h, uint32_t at, struct buf *b)
{
	buf_put_u8(b, 'H');
	buf_put_u64(b, (uint64_t)h->turn << 32 | (at + 1));
	buf_put_u64(b, h->inode->id);
	buf_put_u32(b, (uint32_t)(h->flags & OPEN_FLAGS));
	buf_put_u8(b, h->dir);
}

int fs_save(struct fs_call *c)
{
	struct fs_server *s = c->s;
	struct buf b = {0};
	const uint64_t n_inodes = s->inodes.n_slots, all = 1 + n_inodes + s->max_handles;
	uint64_t at = c->in.nodeid;
	if (at > all || s->loading)
		return -EINVAL;
	for (; at < all && b.len < CHUNK; at++) {
		uint64_t k = at - 1;
		if (at == 0)
			put_root(s, &b);
		else if (k < n_inodes && s->inodes.slot[k])
			put_inode(s->inodes.slot[k], &b);
		else if (k >= n_inodes && s->handle[k - n_inodes].inode)
			put_handle(&s->handle[k - n_inodes], (uint32_t)(k - n_inodes), &b);
	}
	uint64_t next = at < all ? at : 0;
	int r = b.failed ? -ENOMEM : fs_give(c, &next, sizeof(next));
	if (r == 0)
		r = fs_give(c, b.p, b.len);
	buf_free(&b);
	return r;
}

static bool good_type(uint32_t type)
{
	return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK || type == S_IFCHR || type == S_IFBLK;
}

static bool good_name(const char *name)
{
	return *name && strlen(name) <= FS_MAX_NAME && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

/* Room for one element more. */
static bool grow(void **array, uint32_t n, uint32_t *room, size_t size)
{
	if (n < *room)
		return true;
	uint32_t more = *room ? *room * 2 : 64;
	void *p = realloc(*array, more * size);
	if (!p)
		return false;
	*array = p;
	*room = more;
	return true;
}

static int get_inode(struct fs_server *s, struct buf_reader *r)
{
	struct fs_loading *l = s->loading;
	uint64_t id = buf_get_u64(r), parent = buf_get_u64(r), lookups = buf_get_u64(r), ino = buf_get_u64(r), dev = buf_get_u64(r);
	int64_t sec = (int64_t)buf_get_u64(r);
	uint32_t nsec = buf_get_u32(r), type = buf_get_u32(r);
	int err;
	char *name = buf_get_string(r, FS_MAX_NAME);
	if (r->bad || !good_type(type) || (parent && !good_name(name))) {
		free(name);
		return -EINVAL;
	}
	struct inode *i = grow((void **)&l->inode, l->n_inodes, &l->room_inodes, sizeof(*l->inode)) ? inode_restore(&s->inodes, id, &err) : NULL;
	if (!i) {
		free(name);
		return -EINVAL;
	}
	i->lookups = lookups;
	i->ino = ino;
	i->dev = dev == l->old_dev ? s->inodes.root.dev : dev;
	i->birth_sec = sec;
	i->birth_nsec = nsec;
	i->type = type;
	l->inode[l->n_inodes].i = i;
	l->inode[l->n_inodes].parent = parent;
	l->inode[l->n_inodes++].name = name;
	return 0;
}

static int get_handle(struct fs_server *s, struct buf_reader *r)
{
	struct fs_loading *l = s->loading;
	uint64_t fh = buf_get_u64(r), inode = buf_get_u64(r);
	uint32_t flags = buf_get_u32(r);
	uint8_t dir = buf_get_u8(r);
	if (r->bad || dir > 1 || (flags & ~(uint32_t)OPEN_FLAGS) || l->n_handles >= s->max_handles ||
	    !grow((void **)&l->handle, l->n_handles, &l->room_handles, sizeof(*l->handle)))
		return -EINVAL;
	l->handle[l->n_handles].fh = fh;
	l->handle[l->n_handles].inode = inode;
	l->handle[l->n_handles].flags = (int)flags;
	l->handle[l->n_handles++].dir = dir;
	return 0;
}

static int get_record(struct fs_server *s, struct buf_reader *r)
{
	switch (buf_get_u8(r)) {
	case 'R':
		buf_get_u64(r);
		s->loading->old_dev = buf_get_u64(r);
		return r->bad ? -EINVAL : 0;
	case 'I':
		return get_inode(s, r);
	case 'H':
		return get_handle(s, r);
	default:
		return -EINVAL;
	}
}

/* Opens a handle again under its number; what cannot be opened stays closed. */
static void reopen(struct fs_server *s, uint64_t fh, uint64_t inode, int flags, bool dir)
{
	uint32_t at = (uint32_t)fh - 1;
	struct inode *i = inode_any(&s->inodes, inode);
	if (at >= s->max_handles || s->handle[at].inode || !i || (i->type == S_IFDIR) != dir)
		return;
	if (s->opt.readonly && (flags & O_ACCMODE) != O_RDONLY)
		return;
	int fd = fs_reopen(s, i, dir ? O_RDONLY | O_DIRECTORY : flags);
	if (fd < 0)
		return;
	s->handle[at] = (struct fs_handle){.inode = i, .fd = fd, .turn = (uint32_t)(fh >> 32), .flags = flags, .dir = dir};
	inode_opened(&s->inodes, i);
}

static void finish(struct fs_server *s)
{
	struct fs_loading *l = s->loading;
	for (uint32_t k = 0; k < l->n_inodes; k++) {
		struct inode *parent = l->inode[k].parent ? inode_any(&s->inodes, l->inode[k].parent) : NULL;
		inode_place(&s->inodes, l->inode[k].i, parent, l->inode[k].name);
	}
	for (uint32_t k = 0; k < l->n_handles; k++)
		reopen(s, l->handle[k].fh, l->handle[k].inode, l->handle[k].flags, l->handle[k].dir);
	inodes_loaded(&s->inodes);
	s->n_free = 0;
	for (uint32_t k = s->max_handles; k-- > 0;)
		if (!s->handle[k].inode)
			s->free_handle[s->n_free++] = k;
	free_loading(s);
}

int fs_load(struct fs_call *c)
{
	struct fs_server *s = c->s;
	struct buf_reader r = buf_reader(c->p, c->left);
	int err = 0;
	if (c->in.nodeid & FS_LOAD_FIRST) {
		fs_start_afresh(s);
		s->loading = calloc(1, sizeof(*s->loading));
		if (!s->loading)
			return -ENOMEM;
	}
	if (!s->loading)
		return -EINVAL;
	while (err == 0 && r.left)
		err = get_record(s, &r);
	if (err < 0)
		fs_start_afresh(s); /* nothing half loaded is kept */
	else if (c->in.nodeid & FS_LOAD_LAST)
		finish(s);
	return err;
}
