/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry of running sandboxes: one directory each, RUNTIME/sandboxes/NAME, holding
 *   lock          held (flock) by the process that runs the sandbox; free means that the runner is gone
 *   vsock.sock    the monitor's vsock listener
 *   sandbox.json  what is known about it
 * Directories of dead runners are removed by the next command that opens the registry. Needs no daemon.
 */
#ifndef SANDBOX_REGISTRY_H
#define SANDBOX_REGISTRY_H

#include <stdbool.h>

#include "base/error.h"

#define SANDBOX_NAME_MAX 63

struct registry {
	int root_fd; /* the runtime directory */
	char *root;  /* its path */
};

struct sandbox_dir {
	char name[SANDBOX_NAME_MAX + 1];
	char *path;
	int parent_fd, dir_fd, lock_fd; /* -1 where absent */
};

/* True for a letter or digit followed by at most 62 of letters, digits, '.', '_' and '-'. */
bool sandbox_name_ok(const char *name);

int registry_open(struct registry *r, struct cai_error *err);
void registry_close(struct registry *r);

/* Removes what dead runners left. Returns how many directories were removed, or -1. */
int registry_heal(struct registry *r, struct cai_error *err);

/* Heals, then makes and locks the directory of a new sandbox; name NULL or empty: one is invented. Fails with
 * EEXIST when a running sandbox has that name. */
int registry_create(struct registry *r, const char *name, struct sandbox_dir *d, struct cai_error *err);
/* A listening Unix socket FILE in the directory; type SOCK_STREAM or SOCK_SEQPACKET. Returns it
 * (close-on-exec), or -1. */
int sandbox_dir_listen(struct sandbox_dir *d, const char *file, int type, struct cai_error *err);
/* Connects to FILE in the directory; the descriptor is close-on-exec and non-blocking. */
int sandbox_dir_connect(struct sandbox_dir *d, const char *file, int type, struct cai_error *err);
/* Writes FILE atomically. */
int sandbox_dir_write(struct sandbox_dir *d, const char *file, const char *text, struct cai_error *err);
/* Removes the directory with all in it and gives the name back. Safe on a zeroed-and-emptied struct
 * (sandbox_dir_init). */
void sandbox_dir_remove(struct sandbox_dir *d);
void sandbox_dir_init(struct sandbox_dir *d);

#endif
