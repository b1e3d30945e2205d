/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a guest knows, by the node ids it was given.
 *
 * An inode is remembered by what identifies it on the host (device, number, type, birth time) and by where it was last seen
 * (parent and name). A descriptor (O_PATH) is opened for it only when one is needed, is checked to be that very file, and may be
 * closed again: so a guest may know a million files while few descriptors are open. What was deleted while the guest still
 * uses it keeps its descriptor.
 *
 * Paths are walked one name at a time from the root's descriptor, links are never followed; a file that is no longer where it was
 * is ESTALE, upon which Linux looks it up anew.
 *
 * One thread. Functions return 0 or a negative errno.
 */
#ifndef FS_INODE_H
#define FS_INODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define FS_MAX_NAME 255

/* What to ask statx(2) for. */
#define INODE_STATX (STATX_BASIC_STATS | STATX_BTIME)

struct inode {
	uint64_t id;              /* the node id */
	uint64_t ino;
	uint64_t dev;             /* major << 32 | minor */
	int64_t birth_sec;
	uint32_t birth_nsec;
	uint32_t type;            /* S_IFMT bits */
	uint64_t lookups;         /* how many times the guest was given it and has not forgotten it */
	unsigned children;        /* inodes that have it as parent */
	unsigned opens;           /* handles */
	bool pinned;              /* deleted, so it cannot be opened again */
	int fd;                   /* O_PATH; -1: not open */
	struct inode *parent;     /* NULL: the root, or no longer known */
	char *name;               /* in parent; owned */
	struct inode *hash_next;
	struct inode *newer, *older; /* among those with a descriptor that may be closed, by use */
	/* The file as it was when the guest last opened it, if the guest has not written to it since: its pages may be kept. */
	bool seen;
	struct statx_timestamp seen_mtime, seen_ctime;
	uint64_t seen_size;
};

struct inodes {
	struct inode **slot;      /* by the low half of the node id */
	uint32_t *turn;           /* uses of a slot: the high half */
	uint32_t n_slots, n_used; /* slots made; inodes alive */
	uint32_t *free;           /* a stack of slots */
	uint32_t n_free;
	uint32_t max;             /* inodes */
	struct inode **bucket;
	uint32_t n_buckets;       /* a power of two */
	struct inode *newest, *oldest;
	unsigned n_open, max_open; /* descriptors of inodes */
	unsigned n_pinned;
	struct inode root;
};

/* root_fd: O_PATH, owned from a successful return on. max_open: at least 64; at most a quarter as many handles may be open. */
int inodes_init(struct inodes *t, int root_fd, uint32_t max, unsigned max_open);
void inodes_fini(struct inodes *t);
/* Forgets all but the root. Nothing may be open. */
void inodes_clear(struct inodes *t);

/* The inode of a node id that the guest sent, or NULL. */
struct inode *inode_get(struct inodes *t, uint64_t id);
/* The inode that was found as name in parent, made if it is not known, and now known to be there. NULL: -*err, an errno. The
 * caller counts a lookup if it gives the id to the guest. */
struct inode *inode_note(struct inodes *t, struct inode *parent, const char *name, const struct statx *st, int *err);
/* The inode with these marks, if the guest knows it. */
struct inode *inode_find(struct inodes *t, const struct statx *st);
/* It is now name in parent. 0 or -ENOMEM. */
int inode_move(struct inodes *t, struct inode *i, struct inode *parent, const char *name);
/* The guest forgets n lookups. */
void inode_forget(struct inodes *t, struct inode *i, uint64_t n);
/* One that was made and not given to the guest after all. */
void inode_drop_unused(struct inodes *t, struct inode *i);

/* Its O_PATH descriptor, borrowed, good until 8 others have been asked for. Or a negative errno. */
int inode_fd(struct inodes *t, struct inode *i);
/* It is about to be deleted or replaced: keeps a descriptor. */
void inode_pin(struct inodes *t, struct inode *i);
/* A handle was opened or closed. */
void inode_opened(struct inodes *t, struct inode *i);
void inode_closed(struct inodes *t, struct inode *i);
/* Its attributes now. 0 or a negative errno. */
int inode_stat(struct inodes *t, struct inode *i, struct statx *st);

/* For loading a saved table: makes an inode with this very id, without a place. NULL: -*err; the id is taken or impossible. No other inode
 * may be made until inodes_loaded(). */
struct inode *inode_restore(struct inodes *t, uint64_t id, int *err);
/* Like inode_get(), but also one that is there only as a parent. */
struct inode *inode_any(struct inodes *t, uint64_t id);
/* Gives a restored inode, whose marks and type are set, its place; NULL: none. False when there can be no such place. */
bool inode_place(struct inodes *t, struct inode *i, struct inode *parent, const char *name);
/* Ends a load: drops what nobody needs. */
void inodes_loaded(struct inodes *t);

#endif
