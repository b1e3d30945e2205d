/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar archives, for copying into and out of a sandbox: POSIX.1-2001 (pax interchange format, ustar), read also as GNU tar and
 * old programs write them. Archives that are read are hostile: sizes are bounded, a sentence says what is wrong with one.
 */
#ifndef GUEST_TAR_H
#define GUEST_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

#define TAR_BLOCK    512u
#define TAR_MAX_NAME (64u << 10)  /* of a name or a link's target */
#define TAR_MAX_PAX  (1u << 20)   /* of one extended header */

enum tar_type {
	TAR_FILE = '0',
	TAR_HARDLINK = '1',
	TAR_SYMLINK = '2',
	TAR_CHAR = '3',
	TAR_BLOCKDEV = '4',
	TAR_DIR = '5',
	TAR_FIFO = '6',
};

struct tar_entry {
	enum tar_type type;
	const char *name;   /* as it is in the archive: nothing has been checked but that it is not empty */
	const char *target; /* of a link; "" for others */
	uint32_t mode;      /* 12 permission bits */
	uint32_t uid, gid;
	uint32_t major, minor;
	uint64_t size;      /* bytes of data that follow; 0 for all but files */
	int64_t mtime;
	uint32_t mtime_ns;
};

/* Reading. The source is asked for at most n bytes and returns how many it gave, 0 at its end, -1 with errno. */
typedef ssize_t tar_read_fn(void *ctx, void *buf, size_t n);
struct tar_reader;
struct tar_reader *tar_reader_new(tar_read_fn *fn, void *ctx, struct cai_error *err);
void tar_reader_free(struct tar_reader *r); /* NULL is allowed */
/* The next entry, past what was not read of the one before. 1, 0 at the archive's end, -1 for a fault. The strings live until the next call. */
int tar_next(struct tar_reader *r, struct tar_entry *e, struct cai_error *err);
/* The current entry's data: how many bytes, 0 at its end, -1. */
ssize_t tar_data(struct tar_reader *r, void *buf, size_t n, struct cai_error *err);

/* Appends an entry's header blocks, the data's padding, the archive's end. For what ustar cannot express an extended header comes first. */
void tar_put_header(struct buf *out, const struct tar_entry *e);
static inline size_t tar_padding(uint64_t size)
{
	return (size_t)(-size % TAR_BLOCK);
}
#define TAR_END_SIZE (2 * TAR_BLOCK) /* zero bytes */

/* proto/agent.h has what these do: "tar-out" and "tar-in". */
int tar_out(const char *path, int out_fd, struct cai_error *err);
struct tar_in_options {
	bool set_owner; /* everything belongs to these, not to whom the archive says */
	uint32_t uid, gid;
};
int tar_in(int dir, tar_read_fn *fn, void *ctx, const struct tar_in_options *o, struct cai_error *err);

#endif
