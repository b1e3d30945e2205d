/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an EROFS file system (Linux, fs/erofs/erofs_fs.h) without mounting it: for users who may not mount. Compact and extended inodes; plain,
 * inline and chunked contents; no compression (images of the store have none).
 *
 * The file is hostile: every offset is checked against its size, nothing is recursive, nothing is allocated by a size it states.
 */
#ifndef IMAGE_EROFS_READ_H
#define IMAGE_EROFS_READ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct erofs_reader {
	int fd; /* borrowed */
	uint64_t size, meta, root; /* bytes of the file; where inode 0 would be; the root's number */
	unsigned block_bits;
};

struct erofs_node {
	uint64_t nid, size, body; /* body: where what follows the inode and its attributes begins in the file */
	uint64_t xattrs; /* where attributes begin; they end where body begins */
	uint32_t mode, uid, gid, nlink, mtime_ns, raw; /* raw: first block, device or chunk format */
	int64_t mtime;
	unsigned layout;
	dev_t rdev;
};

/* A run of a file's contents that is in one piece in the image, or a hole. */
struct erofs_extent {
	uint64_t at, len;
	bool hole;
};

int erofs_read_open(struct erofs_reader *e, int fd, struct cai_error *err);
int erofs_read_node(const struct erofs_reader *e, uint64_t nid, struct erofs_node *n, struct cai_error *err);
/* The run that holds offset off < size. */
int erofs_read_extent(const struct erofs_reader *e, const struct erofs_node *n, uint64_t off, struct erofs_extent *x, struct cai_error *err);
/* Calls fn for each entry of a directory but "." and ".."; a name is 1 to 255 bytes without "/" and NUL, NUL-terminated. */
int erofs_read_dir(const struct erofs_reader *e, const struct erofs_node *n,
		   int (*fn)(const char *name, uint64_t nid, void *arg, struct cai_error *err), void *arg, struct cai_error *err);
/* Calls fn for each extended attribute that stands behind the inode (shared ones, which images of the store do not have, are refused): the
 * name with its prefix, NUL-terminated. Attributes of a prefix that is not known are passed over. */
int erofs_read_xattrs(const struct erofs_reader *e, const struct erofs_node *n,
		      int (*fn)(const char *name, const void *value, size_t len, void *arg, struct cai_error *err), void *arg, struct cai_error *err);
/* A link's target, at most size - 1 bytes, NUL-terminated. */
int erofs_read_link(const struct erofs_reader *e, const struct erofs_node *n, char *text, size_t size, struct cai_error *err);

#endif
