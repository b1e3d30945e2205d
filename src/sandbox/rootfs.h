/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's root file system as a read-only block device: a file that the caller names, or an EROFS file
 * made from a directory and cached until the directory changes.
 */
#ifndef SANDBOX_ROOTFS_H
#define SANDBOX_ROOTFS_H

#include "base/error.h"

struct rootfs {
	int fd;		    /* read-only, close-on-exec; owned */
	const char *fstype; /* "erofs" or "ext4" */
};

/* path: a directory or an EROFS or ext4 file; NULL: the built-in image. 0, or -1 with a sentence that names
 * path. */
int rootfs_open(const char *path, struct rootfs *out, struct cai_error *err);
void rootfs_close(struct rootfs *r);

#endif
