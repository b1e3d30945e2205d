/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes an EROFS file system (Linux, fs/erofs/erofs_fs.h): uncompressed, 4 KiB blocks, extended inodes,
 * inline tails and extended attributes, chunk maps for sparse files. Contents are streamed while the tree is
 * still being built; metadata comes last. The same tree and the same order of contents give the same bytes.
 *
 * One thread. Descriptors are borrowed; the writer needs only pwrite, pread and fallocate on them.
 */
#ifndef IMAGE_EROFS_H
#define IMAGE_EROFS_H

#include "image/tree.h"

#define EROFS_BLOCK 4096u

struct erofs_writer {
	int fd;	   /* the file system; empty, readable */
	int spill; /* an empty scratch file: the ends of files until their inodes are placed */
	uint64_t max_bytes;
	uint64_t next_block; /* the first one never used */
	uint64_t stored;     /* bytes of contents */
	uint64_t map_entries;
	/* the file being written */
	struct tree_inode *file;
	uint64_t file_end; /* its whole blocks, in bytes; beyond is the tail */
	uint8_t tail[EROFS_BLOCK];
	/* buffered spill */
	uint8_t *spill_buf;
	uint64_t spill_start;
	uint32_t spill_len;
};

int erofs_writer_init(struct erofs_writer *w, int fd, int spill, uint64_t max_bytes, struct cai_error *err);
void erofs_writer_free(struct erofs_writer *w);

/* The contents of a regular file: begin (with its size and xattrs set), any number of puts at ascending or
 * other offsets below its size (what is left out reads as zeros), end. sparse: holes are kept as holes. */
int erofs_file_begin(struct erofs_writer *w, struct tree_inode *i, bool sparse, struct cai_error *err);
int erofs_file_put(struct erofs_writer *w, uint64_t off, const void *p, size_t n, struct cai_error *err);
int erofs_file_end(struct erofs_writer *w, struct cai_error *err);
/* Gives the blocks of a file that is in the tree no more back to the host. For tree.drop. */
void erofs_file_drop(void *writer, struct tree_inode *i);

/* Writes everything else. *size is the file's length. Not synced. */
int erofs_finish(struct erofs_writer *w, struct tree *t, uint64_t *size, struct cai_error *err);

#endif
