/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are: the root directory of this user's sandboxes, the cache and state directories, the monitor program
 * and the files a sandbox is made of (kernel, initramfs, built-in image).
 *
 * All functions return malloc'd absolute paths owned by the caller, or NULL (-1) with *err.
 */
#ifndef SANDBOX_PATHS_H
#define SANDBOX_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * The root directory, which holds all that Caisson keeps: CAISSON_ROOT, else for root /var/lib/caisson, else
 * $XDG_DATA_HOME/caisson or ~/.local/share/caisson. Made with mode 0700 when absent; refused when it is a
 * symbolic link or belongs to another user. Returns an open descriptor (close-on-exec, owned by the caller)
 * and its path in *path (owned).
 */
int paths_root(char **path, struct cai_error *err);

/* $XDG_CACHE_HOME/caisson, else for root /var/cache/caisson, else ~/.cache/caisson; made 0700 when absent. */
char *paths_cache(struct cai_error *err);
/* $XDG_STATE_HOME/caisson, else for root /var/lib/caisson, else ~/.local/state/caisson; made 0700 when
 * absent. */
char *paths_state(struct cai_error *err);

/* A program of libexec: CAISSON_LIBEXEC/NAME, ../libexec/caisson/NAME beside the running program, or the
 * build tree's. */
char *paths_libexec(const char *name, struct cai_error *err);

enum paths_asset { ASSET_KERNEL, ASSET_INITRD, ASSET_BUSYBOX, ASSET_CMDLINE };
/* A file of share/caisson: CAISSON_SHARE/NAME, ../share/caisson/NAME beside the running program, or the build
 * tree's. */
char *paths_asset(enum paths_asset which, struct cai_error *err);

/* Joins with a '/'; NULL when memory ran out. */
char *path_join(const char *a, const char *b);
/* mkdir -p with the given mode for what is made. 0, or -1 with errno. */
int make_dirs(const char *path, unsigned mode);
/* The host's boot id as 36 characters and NUL, or "unknown" where /proc does not tell. */
void host_boot_id(char out[40]);

#endif
