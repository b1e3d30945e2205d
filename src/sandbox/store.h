/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of sandboxes, below the root directory (sandbox/paths.h):
 *
 *   sandboxes/ID/          one directory a sandbox, running or not; ID is 12 hexadecimal digits
 *     lock                 held (flock) by the process that runs the sandbox or changes it; free: nobody does
 *     config.json          what was asked for (sandbox/spec.h); written once, and by `update`
 *     state.json           what became of it (sandbox/state.h)
 *     log                  what its program wrote (sandbox/logfile.h)
 *     upper/, upper.ext4   its writable layer
 *     agent.sock           the agent: `exec`, `cp`, `top`
 *     runner.sock          the process that runs it (sandbox/runner.h)
 *   names/NAME             a symbolic link whose target is the ID
 *   events                 what happened (sandbox/events.h)
 *
 * There is no daemon: the locks alone say what runs. Everything in a directory appears by rename, whole. A sandbox exists when its
 * config.json does; a directory without one that nobody holds is what a killed command left, and is removed by the next one.
 */
#ifndef SANDBOX_STORE_H
#define SANDBOX_STORE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

#define SANDBOX_NAME_MAX 63
#define SANDBOX_ID_LEN	 12

struct store {
	int root_fd; /* the root directory */
	char *root;  /* its path */
	int dir_fd;  /* sandboxes/ */
};

struct sandbox_dir {
	char id[SANDBOX_ID_LEN + 1];
	char *path;
	int store_fd, dir_fd, lock_fd; /* -1 where absent; store_fd is sandboxes/ */
};

/* True for a letter or digit followed by at most 62 of letters, digits, '.', '_' and '-'. */
bool sandbox_name_ok(const char *name);

int store_open(struct store *s, struct cai_error *err);
void store_close(struct store *s);
/* Waits for the lock under which sandboxes' directories are made; the descriptor is the lock. -1 with *err. */
int store_lock(struct store *s, struct cai_error *err);

/*
 * Makes and locks the directory of a new sandbox and reserves its name (NULL or "": its id). It has no config.json yet. Fails
 * with EEXIST, naming the owner, when the name is taken.
 */
int store_create(struct store *s, const char *name, struct sandbox_dir *d, struct cai_error *err);
/* Finds a sandbox by name, id or a prefix of an id that fits one only. ENOENT when there is none. Not locked. */
int store_find(struct store *s, const char *what, struct sandbox_dir *d, struct cai_error *err);
/* Calls fn for each sandbox; stops when it returns non-zero and returns that. d is fn's to look at, not to keep. */
int store_each(struct store *s, int (*fn)(void *ctx, struct sandbox_dir *d), void *ctx, struct cai_error *err);
/* Gives a sandbox another name; old is released. Call with its lock held or while it runs under the caller's eyes. */
int store_rename(struct store *s, const struct sandbox_dir *d, const char *old, const char *name, struct cai_error *err);

/* Releases every name that id has; looks at all names. */
void store_release_names(struct store *s, const char *id);
/* Removes what was unpacked for containers of an ordinary user (ROOT/unpacked) of images that are gone from the store. */
void store_prune_unpacked(struct store *s);

/* Takes the sandbox's lock without waiting: 1, 0 when another process holds it, -1 on errors. */
int sandbox_dir_lock(struct sandbox_dir *d, struct cai_error *err);
/* Waits at most ms for it, for commands that follow one that is ending. 1, 0 or -1. */
int sandbox_dir_lock_wait(struct sandbox_dir *d, unsigned ms, struct cai_error *err);
/* Whether some process holds it (this one included). */
bool sandbox_dir_held(const struct sandbox_dir *d);

/* A listening Unix socket FILE in the directory, in place of an old one; type SOCK_STREAM or SOCK_SEQPACKET. Close-on-exec, non-blocking. */
int sandbox_dir_listen(struct sandbox_dir *d, const char *file, int type, struct cai_error *err);
/* Connects to FILE in the directory; the descriptor is close-on-exec and non-blocking. */
int sandbox_dir_connect(struct sandbox_dir *d, const char *file, int type, struct cai_error *err);
/* Writes FILE atomically; durable: synced before it is named. */
int sandbox_dir_write(struct sandbox_dir *d, const char *file, json_t *o, bool durable, struct cai_error *err);
/* Reads FILE. NULL with *err; ENOENT when there is none. */
json_t *sandbox_dir_read(const struct sandbox_dir *d, const char *file, struct cai_error *err);
/* Removes the directory with all in it and the name (NULL: none). The lock must be held; it is given up. */
void sandbox_dir_remove(struct sandbox_dir *d, const char *name);
/* Closes; also what sandbox_dir_init made. */
void sandbox_dir_close(struct sandbox_dir *d);
void sandbox_dir_init(struct sandbox_dir *d);

#endif
