/* SPDX-License-Identifier: Apache-2.0 */
/* An image of the store as a file for others: a tar archive of its root file system, or an OCI archive. */
#ifndef IMAGE_EXPORT_H
#define IMAGE_EXPORT_H

#include "image/store.h"
#include "image/tree.h"

/*
 * Writes what is in the EROFS file to the descriptor out as a tar archive (pax), everything that an image
 * keeps but sockets. *size and diff_id are of what was written. Run it only where image/confine.h has been
 * entered: the file is taken for hostile.
 */
int export_tar(int erofs, int out, const struct tree_limits *limits, uint64_t *size,
	       char diff_id[IMAGE_DIGEST_LEN + 1], struct cai_error *err);

enum export_format {
	EXPORT_EROFS, /* the store's file as it is */
	EXPORT_TAR,   /* the root file system */
	EXPORT_OCI,   /* one layer and the configuration: an OCI archive that docker load takes, too */
};

/*
 * To file, which appears whole, or "-": standard output. Of EXPORT_OCI, the image has another id where it is
 * imported, since its layers are now one. {"file", "size"}.
 */
json_t *image_export(struct image_store *s, const char *ref, const char *file, enum export_format format,
		     struct cai_error *err);

#endif
