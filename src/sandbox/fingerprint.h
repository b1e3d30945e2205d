/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fingerprint of a directory tree: it changes when anything a file-system image of the tree would show
 * changes (names, types, modes, owners, sizes, contents through mtime and ctime, links through inode
 * numbers). Only metadata is read.
 */
#ifndef SANDBOX_FINGERPRINT_H
#define SANDBOX_FINGERPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct fingerprint {
	uint64_t hash[2];
	uint64_t entries;
	uint64_t bytes;	   /* of regular files */
	int64_t newest_ns; /* newest ctime, CLOCK_REALTIME */
};

/* Scans the tree below path. Fails on an unreadable directory and on another file system mounted below. */
int fingerprint_tree(const char *path, struct fingerprint *f, struct cai_error *err);

/* SipHash-2-4 with a 128-bit result, incremental; also used for cache names. */
struct siphash {
	uint64_t v[4], tail;
	unsigned n_tail;
	uint64_t total;
};
void siphash_init(struct siphash *h);
void siphash_add(struct siphash *h, const void *p, uint64_t n);
void siphash_end(struct siphash *h, uint64_t out[2]);

#endif
