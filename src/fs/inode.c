/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Node ids are a slot's number and how often the slot was used, so that an id of the past is told from one of today. The table of
 * marks (device, number, type, birth time) finds the inode of a file that is met again, under another name perhaps: hard
 * links are one inode. The birth time tells a file from a later one that got its number.
 *
 * An inode lives while the guest has lookups of it or another inode has it as parent. Parents are kept by pointer, so a renamed
 * directory takes its whole tree along. What the host moves may turn the remembered tree into a circle; a new parent is
 * therefore refused (the inode becomes one without a place) when the inode is among its ancestors.
 *
 * Descriptors are a cache, least recently used first to go, except those of inodes with handles and of deleted ones.
 */
#include "fs/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define FIRST_BUCKETS 1024u
#define MAX_DEPTH     4096u /* no path is walked further */

static uint64_t device_of(const struct statx *st)
{
	return (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor;
}

static bool is_same(const struct inode *i, const struct statx *st)
{
	return i->ino == st->stx_ino && i->dev == device_of(st) && i->type == (st->stx_mode & S_IFMT) &&
	       i->birth_sec == st->stx_btime.tv_sec && i->birth_nsec == st->stx_btime.tv_nsec;
}

static void set_marks(struct inode *i, const struct statx *st)
{
	i->ino = st->stx_ino;
	i->dev = device_of(st);
	i->type = st->stx_mode & S_IFMT;
	i->birth_sec = st->stx_btime.tv_sec;
	i->birth_nsec = st->stx_btime.tv_nsec;
}

static struct inode **bucket_of(struct inodes *t, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev << 20) * 0x9e3779b97f4a7c15ull;
	return &t->bucket[h >> 32 & (t->n_buckets - 1)];
}

static void hash_add(struct inodes *t, struct inode *i)
{
	struct inode **b = bucket_of(t, i->dev, i->ino);
	i->hash_next = *b;
	*b = i;
}

static void hash_del(struct inodes *t, struct inode *i)
{
	struct inode **p = bucket_of(t, i->dev, i->ino);
	while (*p && *p != i)
		p = &(*p)->hash_next;
	if (*p)
		*p = i->hash_next;
}

/* Keeps chains short; failing to is no harm. */
static void grow_buckets(struct inodes *t)
{
	uint32_t old_n = t->n_buckets;
	struct inode **old = t->bucket, **bigger;
	if (t->n_used < old_n || !(bigger = calloc((size_t)old_n * 2, sizeof(*bigger))))
		return;
	t->bucket = bigger;
	t->n_buckets = old_n * 2;
	for (uint32_t k = 0; k < old_n; k++)
		for (struct inode *i = old[k], *next; i; i = next) {
			next = i->hash_next;
			hash_add(t, i);
		}
	free(old);
}

static void lru_del(struct inodes *t, struct inode *i)
{
	if (i->newer)
		i->newer->older = i->older;
	else if (t->newest == i)
		t->newest = i->older;
	if (i->older)
		i->older->newer = i->newer;
	else if (t->oldest == i)
		t->oldest = i->newer;
	i->newer = i->older = NULL;
}

static void lru_add(struct inodes *t, struct inode *i)
{
	i->older = t->newest;
	i->newer = NULL;
	if (t->newest)
		t->newest->newer = i;
	t->newest = i;
	if (!t->oldest)
		t->oldest = i;
}

static bool may_close(const struct inodes *t, const struct inode *i)
{
	return i->fd >= 0 && !i->pinned && !i->opens && i != &t->root;
}

static void close_fd(struct inodes *t, struct inode *i)
{
	if (i->fd < 0)
		return;
	close(i->fd);
	i->fd = -1;
	t->n_open--;
}

int inodes_init(struct inodes *t, int root_fd, uint32_t max, unsigned max_open)
{
	struct statx st;
	*t = (struct inodes){.max = max, .max_open = max_open, .n_buckets = FIRST_BUCKETS};
	t->bucket = calloc(FIRST_BUCKETS, sizeof(*t->bucket));
	if (!t->bucket)
		return -ENOMEM;
	if (statx(root_fd, "", AT_EMPTY_PATH, INODE_STATX, &st) < 0) {
		int e = errno;
		free(t->bucket);
		return -e;
	}
	t->root = (struct inode){.id = 1, .lookups = 1, .fd = root_fd, .pinned = true};
	set_marks(&t->root, &st);
	hash_add(t, &t->root);
	return 0;
}

static void destroy(struct inodes *t, struct inode *i)
{
	uint32_t slot = (uint32_t)i->id;
	lru_del(t, i);
	t->n_pinned -= i->pinned;
	close_fd(t, i);
	hash_del(t, i);
	free(i->name);
	t->slot[slot] = NULL;
	t->free[t->n_free++] = slot;
	t->n_used--;
	free(i);
}

/* Frees the inode, and then its parents, as far as nobody needs them. */
static void put(struct inodes *t, struct inode *i)
{
	while (i && i != &t->root && !i->lookups && !i->children && !i->opens) {
		struct inode *parent = i->parent;
		destroy(t, i);
		if (parent)
			parent->children--;
		i = parent;
	}
}

void inodes_clear(struct inodes *t)
{
	for (uint32_t k = 0; k < t->n_slots; k++)
		if (t->slot[k])
			destroy(t, t->slot[k]);
	t->root.children = 0;
	t->root.lookups = 1;
}

void inodes_fini(struct inodes *t)
{
	inodes_clear(t);
	close(t->root.fd);
	free(t->slot);
	free(t->turn);
	free(t->free);
	free(t->bucket);
}

struct inode *inode_get(struct inodes *t, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	if (id == t->root.id)
		return &t->root;
	if (slot >= t->n_slots || !t->slot[slot] || t->slot[slot]->id != id)
		return NULL;
	return t->slot[slot]->lookups ? t->slot[slot] : NULL;
}

/* Makes the table n slots long; the new ones are not in the stack of free ones. */
static bool grow_slots(struct inodes *t, uint32_t n)
{
	void *a = realloc(t->slot, n * sizeof(*t->slot));
	if (a)
		t->slot = a;
	void *b = realloc(t->turn, n * sizeof(*t->turn));
	if (b)
		t->turn = b;
	void *c = realloc(t->free, n * sizeof(*t->free));
	if (c)
		t->free = c;
	if (!a || !b || !c)
		return false;
	memset(t->slot + t->n_slots, 0, (n - t->n_slots) * sizeof(*t->slot));
	memset(t->turn + t->n_slots, 0, (n - t->n_slots) * sizeof(*t->turn));
	t->n_slots = n;
	return true;
}

/* A free slot, or -1. Slots 0 and 1 are never used: 0 is no node, 1 the root. */
static int64_t take_slot(struct inodes *t)
{
	if (t->n_used >= t->max)
		return -1;
	if (!t->n_free) {
		uint32_t first = t->n_slots ? t->n_slots : 2;
		if (!grow_slots(t, t->n_slots ? t->n_slots * 2 : 256))
			return -1;
		for (uint32_t k = t->n_slots; k-- > first;)
			t->free[t->n_free++] = k;
	}
	return t->free[--t->n_free];
}

static bool is_ancestor(const struct inode *who, const struct inode *of)
{
	for (unsigned depth = 0; of; of = of->parent, depth++)
		if (of == who || depth > MAX_DEPTH)
			return true;
	return false;
}

int inode_move(struct inodes *t, struct inode *i, struct inode *parent, const char *name)
{
	if (i == &t->root)
		return 0;
	if (i->parent == parent && i->name && !strcmp(i->name, name))
		return 0;
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	struct inode *old = i->parent;
	free(i->name);
	i->name = copy;
	/* Only a directory can have come to lie below itself, and only one with something in it. */
	if (i->children && is_ancestor(i, parent))
		parent = NULL;
	i->parent = parent;
	if (parent)
		parent->children++;
	if (old) {
		old->children--;
		put(t, old);
	}
	return 0;
}

struct inode *inode_find(struct inodes *t, const struct statx *st)
{
	for (struct inode *i = *bucket_of(t, device_of(st), st->stx_ino); i; i = i->hash_next)
		if (is_same(i, st))
			return i;
	return NULL;
}

struct inode *inode_note(struct inodes *t, struct inode *parent, const char *name, const struct statx *st, int *err)
{
	struct inode *i = inode_find(t, st);
	if (i) {
		*err = inode_move(t, i, parent, name);
		return *err ? NULL : i;
	}
	int64_t slot = take_slot(t);
	*err = slot < 0 ? -ENFILE : -ENOMEM;
	if (slot < 0)
		return NULL;
	i = calloc(1, sizeof(*i));
	char *copy = i ? strdup(name) : NULL;
	if (!copy) {
		free(i);
		t->free[t->n_free++] = (uint32_t)slot;
		return NULL;
	}
	i->id = (uint64_t)++t->turn[slot] << 32 | (uint64_t)slot;
	i->fd = -1;
	i->name = copy;
	i->parent = parent;
	parent->children++;
	set_marks(i, st);
	t->slot[slot] = i;
	t->n_used++;
	grow_buckets(t);
	hash_add(t, i);
	*err = 0;
	return i;
}

void inode_forget(struct inodes *t, struct inode *i, uint64_t n)
{
	if (i == &t->root)
		return;
	i->lookups -= n < i->lookups ? n : i->lookups;
	put(t, i);
}

void inode_drop_unused(struct inodes *t, struct inode *i)
{
	put(t, i);
}

/* Opens name in dir and makes sure that it is i. The descriptor, or a negative errno. */
static int open_checked(int dir, const char *name, const struct inode *i)
{
	struct statx st;
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
	if (statx(fd, "", AT_EMPTY_PATH, INODE_STATX, &st) == 0 && is_same(i, &st))
		return fd;
	close(fd);
	return -ESTALE;
}

/* Makes room for one descriptor more. As handles and deleted files have at most half of all, the ones used last are not closed. */
static int make_room(struct inodes *t)
{
	while (t->n_open >= t->max_open) {
		struct inode *victim = t->oldest;
		if (!victim || victim == t->newest)
			return -ENFILE;
		lru_del(t, victim);
		close_fd(t, victim);
	}
	return 0;
}

static void keep_fd(struct inodes *t, struct inode *i, int fd)
{
	i->fd = fd;
	t->n_open++;
	if (may_close(t, i))
		lru_add(t, i);
}

/* Opens i from the nearest directory above it that has a descriptor. */
static int open_inode(struct inodes *t, struct inode *i)
{
	struct inode *path[MAX_DEPTH], *from = i;
	unsigned n = 0;
	for (; from && from->fd < 0 && n < MAX_DEPTH; from = from->parent)
		path[n++] = from;
	if (!from || from->fd < 0)
		return -ESTALE; /* it has no place any more */
	if (may_close(t, from)) {
		lru_del(t, from); /* not the next to be closed */
		lru_add(t, from);
	}
	int r = make_room(t);
	if (r < 0)
		return r;
	int dir = from->fd, owned = -1;
	while (n--) {
		int fd = open_checked(dir, path[n]->name, path[n]);
		if (owned >= 0)
			close(owned);
		if (fd < 0)
			return fd;
		dir = owned = fd;
		/* The directory right above is likely to be asked for again, the others less so. */
		if (n == 1 && t->n_open + 1 < t->max_open) {
			keep_fd(t, path[n], fd);
			owned = -1;
		}
	}
	keep_fd(t, i, owned);
	return 0;
}

int inode_fd(struct inodes *t, struct inode *i)
{
	if (i->fd < 0) {
		int r = open_inode(t, i);
		return r < 0 ? r : i->fd;
	}
	if (may_close(t, i)) {
		lru_del(t, i);
		lru_add(t, i);
	}
	return i->fd;
}

void inode_pin(struct inodes *t, struct inode *i)
{
	/* Beyond a quarter of all descriptors, a deleted file is gone. */
	if (i->pinned || (!i->lookups && !i->opens) || t->n_pinned >= t->max_open / 4 || inode_fd(t, i) < 0)
		return;
	lru_del(t, i);
	i->pinned = true;
	t->n_pinned++;
}

void inode_opened(struct inodes *t, struct inode *i)
{
	lru_del(t, i);
	i->opens++;
}

void inode_closed(struct inodes *t, struct inode *i)
{
	i->opens--;
	if (may_close(t, i))
		lru_add(t, i);
	put(t, i);
}

int inode_stat(struct inodes *t, struct inode *i, struct statx *st)
{
	/* Two steps less than opening it, when only its directory is open. */
	if (i->fd < 0 && i->parent) {
		int dir = inode_fd(t, i->parent);
		if (dir < 0)
			return dir;
		if (statx(dir, i->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, INODE_STATX, st) < 0)
			return errno == ENOENT ? -ESTALE : -errno;
		return is_same(i, st) ? 0 : -ESTALE;
	}
	int fd = inode_fd(t, i);
	if (fd < 0)
		return fd;
	return statx(fd, "", AT_EMPTY_PATH, INODE_STATX, st) < 0 ? -errno : 0;
}

struct inode *inode_any(struct inodes *t, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	if (id == t->root.id)
		return &t->root;
	return slot < t->n_slots && t->slot[slot] && t->slot[slot]->id == id ? t->slot[slot] : NULL;
}

struct inode *inode_restore(struct inodes *t, uint64_t id, int *err)
{
	uint32_t slot = (uint32_t)id;
	*err = -EINVAL;
	/* Slots double, so the largest that can have been used is below twice the most there may be. */
	if (slot < 2 || slot >= 2 * (uint64_t)t->max + 256 || !(id >> 32) || id >> 63 || t->n_used >= t->max)
		return NULL;
	*err = -ENOMEM;
	if (slot >= t->n_slots && !grow_slots(t, (uint32_t)align_up(slot + 1, 256)))
		return NULL;
	*err = -EINVAL;
	if (t->slot[slot])
		return NULL;
	struct inode *i = calloc(1, sizeof(*i));
	*err = i ? 0 : -ENOMEM;
	if (!i)
		return NULL;
	i->id = id;
	i->fd = -1;
	t->turn[slot] = (uint32_t)(id >> 32);
	t->slot[slot] = i;
	t->n_used++;
	return i;
}

bool inode_place(struct inodes *t, struct inode *i, struct inode *parent, const char *name)
{
	grow_buckets(t);
	hash_add(t, i);
	if (!parent)
		return true;
	if (parent->type != S_IFDIR || (i->type == S_IFDIR && is_ancestor(i, parent)) || !(i->name = strdup(name)))
		return false;
	i->parent = parent;
	parent->children++;
	return true;
}

void inodes_loaded(struct inodes *t)
{
	t->n_free = 0;
	for (uint32_t k = t->n_slots; k-- > 2;)
		if (!t->slot[k])
			t->free[t->n_free++] = k;
	for (uint32_t k = 2; k < t->n_slots; k++)
		if (t->slot[k])
			put(t, t->slot[k]);
}
