/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads one layer (a tar archive, plain or compressed) into a tree and an EROFS file. Implements the OCI
 * image specification, "Image Layer Filesystem Changeset". The bytes are hostile: run it only where
 * image/confine.h has been entered.
 */
#ifndef IMAGE_LAYER_H
#define IMAGE_LAYER_H

#include "image/erofs.h"
#include "image/ref.h"
#include "image/tree.h"

/* A run of bytes in a file. */
struct blob {
	int fd; /* borrowed */
	uint64_t off, len;
};

/*
 * Applies the blob as layer number n (from 1, lowest first). digest and diff_id, when not NULL or "", are
 * what the packed and unpacked bytes must hash to. diff_id_out (may be NULL) is what the unpacked ones do
 * hash to. -1 with *err on anything wrong; what was made so far is then to be thrown away.
 */
int layer_apply(const struct blob *b, uint32_t n, const char *digest, const char *diff_id, struct tree *t,
		struct erofs_writer *w, char diff_id_out[IMAGE_DIGEST_LEN + 1], struct cai_error *err);

#endif
