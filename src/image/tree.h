/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file tree that an image's layers add up to, in memory: names and metadata, not contents (those are in
 * the EROFS file being written; image/erofs.h). Implements the changesets of the OCI image specification
 * ("Image Layer Filesystem Changeset"): whiteouts, opaque directories, hard links.
 *
 * Paths come from a hostile archive. They are resolved inside this tree only, so nothing in them can reach
 * the host: symbolic links are followed from the tree's root, ".." in a link stops there, ".." in an entry's
 * name is refused.
 *
 * One thread. Strings and values passed in are copied.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct tree_xattr {
	struct tree_xattr *next; /* sorted by name */
	char *name;		 /* with its prefix: "security.capability" */
	void *value;
	uint16_t len;
};

struct tree_inode {
	uint32_t mode; /* type and permissions, as in stat(2) */
	uint32_t uid, gid, nlink;
	uint64_t rdev; /* dev_t of a device */
	int64_t mtime; /* s since 1970 */
	uint32_t mtime_ns;
	uint64_t size; /* of a file, or the length of a link's target */
	struct tree_xattr *xattrs;
	char *target; /* symbolic link */

	/* directory */
	void *children; /* tsearch(3) tree of struct tree_dent */
	struct tree_inode *parent;
	uint32_t n_children, n_subdirs, depth, swept; /* swept: the layer whose whiteouts emptied it last */

	/* where the contents are; the writer's (image/erofs.c) */
	uint32_t block, n_blocks, *chunks, n_chunks, ino;
	uint64_t tail, nid, meta_len;
	uint16_t tail_len, chunk_bits;
	struct tree_inode *next; /* in the order of writing */
};

struct tree_dent {
	char *name;
	uint32_t layer; /* that brought it, from 1 */
	struct tree_inode *inode;
};

struct tree_limits {
	uint64_t max_entries;	  /* over all layers, replaced ones too */
	uint64_t max_bytes;	  /* of contents, stored ones; of the EROFS file too */
	uint64_t max_xattr_bytes; /* over all layers */
	uint64_t max_steps;	  /* parts of names and links walked, over all layers */
	unsigned max_ratio;	  /* unpacked to packed, looked at beyond ratio_from */
	uint64_t ratio_from;
};
extern const struct tree_limits tree_default_limits;

struct tree {
	struct tree_inode *root;
	struct tree_limits limits;
	uint64_t n_entries, xattr_bytes, steps;
	/* Called when the last name of a file goes. */
	void (*drop)(void *ctx, struct tree_inode *i);
	void *drop_ctx;
};

/* The empty tree: a root directory 0755 of root. -1 when memory ran out. */
int tree_init(struct tree *t, const struct tree_limits *limits);
void tree_free(struct tree *t);

/* A new inode with no name yet; to be given to tree_add, or freed. */
struct tree_inode *tree_inode_new(void);
void tree_inode_free(struct tree_inode *i);
/* Adds an extended attribute, replacing one of the same name. Names that no file system keeps (unknown
 * prefix) and those that would steer an overlay mount on the host (trusted.overlay., user.overlay.) are left
 * out. */
int tree_set_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value, size_t len,
		   struct cai_error *err);

/* Puts i (taken over, also on failure) at path. A directory that is there keeps what is in it and takes i's
 * metadata; anything else that is there goes. *placed (may be NULL) is the inode now in the tree. */
int tree_add(struct tree *t, uint32_t layer, const char *path, struct tree_inode *i,
	     struct tree_inode **placed, struct cai_error *err);
/* Makes path another name of target, which must be there and no directory. */
int tree_link(struct tree *t, uint32_t layer, const char *path, const char *target, struct cai_error *err);
/* Applies the whiteout file path (DIR/.wh.NAME or DIR/.wh..wh..opq) to what layers below brought. */
int tree_whiteout(struct tree *t, uint32_t layer, const char *path, struct cai_error *err);
/* Whether the last part of path is a whiteout's. */
bool tree_is_whiteout(const char *path);

/* The inode at path, or NULL; symbolic links in all but the last part are followed. For tests and small
 * lookups. */
struct tree_inode *tree_lookup(struct tree *t, const char *path);
/* Calls fn for each entry of dir in byte order of their names. */
void tree_each(const struct tree_inode *dir, void (*fn)(void *ctx, const struct tree_dent *d), void *ctx);

#endif
