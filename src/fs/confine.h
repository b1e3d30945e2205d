/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confinement of caisson-fs: namespaces of its own in which the shared directory is the root and all there is, no capability
 * but those over the files in it, and a list of system calls.
 */
#ifndef FS_CONFINE_H
#define FS_CONFINE_H

#include <stdbool.h>

#include "base/error.h"

struct confinement {
	int root_fd;     /* the shared directory in the new mount namespace, O_PATH */
	int proc_fd;     /* a mount of /proc/self/fd with nothing above it */
	bool all_ids;    /* files can be given to any user of the host: run as root */
	bool user_ns;
};

/* Shares the directory dir_fd, which is closed. Processes and mounts of the host are out of reach from here on. */
int confine_enter(struct confinement *c, int dir_fd, bool readonly, struct cai_error *err);
/* Drops capabilities and installs the filter: from here on only what serving takes. */
int confine_seal(const struct confinement *c, struct cai_error *err);

#endif
