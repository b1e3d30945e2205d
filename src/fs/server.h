/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE server (linux/fuse.h, protocol 7.38) over one directory: requests in, replies out, no socket. It knows files only as
 * descriptors below the directory's, never follows a symbolic link, opens nothing but regular files and directories, and so can be
 * run and tested on any directory; the confinement that makes sure of it is elsewhere (fs/confine.h).
 *
 * Every byte of a request is hostile: lengths, names, node ids, handles.
 *
 * One thread.
 */
#ifndef FS_SERVER_H
#define FS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define FS_MAX_IO      (1u << 20)               /* bytes of file contents in one request */
#define FS_MAX_MESSAGE (FS_MAX_IO + (64u << 10)) /* bytes in a request or reply */

/*
 * Two requests of the monitor's own, which it lets no guest send: what the guest knows, out of one server and into another, so that a
 * guest restored from a snapshot goes on with the files it has open.
 *
 * SAVE: the header's node id says where to go on, 0 at first. The reply is that number for the next call (u64; 0: this was all), then
 * records.
 * LOAD: the node id is a sum of FS_LOAD_*, the body is records, whole ones. Files are looked for where they were; what is not
 * there any more is ESTALE or EBADF when the guest uses it.
 */
#define FS_OP_SAVE    0x43530001u
#define FS_OP_LOAD    0x43530002u
#define FS_LOAD_FIRST 1u /* forgets everything before */
#define FS_LOAD_LAST  2u

struct fs_options {
	int root_fd;         /* the directory, O_PATH or O_RDONLY; owned by the server from a successful return on */
	int proc_fd;         /* this process's /proc/self/fd, or a mount of it; borrowed. It becomes the working directory */
	bool readonly;
	bool switch_ids;     /* create files as the user and group that the request names; needs CAP_SETUID and CAP_SETGID */
	unsigned cache_ms;   /* how long the guest may use directories' names, attributes and listings without asking again */
	uint32_t max_inodes; /* files known to the guest at once */
	unsigned max_fds;    /* descriptors the server may have open, at least 128 */
};

struct fs_server;

struct fs_server *fs_server_new(const struct fs_options *opt, struct cai_error *err);
void fs_server_free(struct fs_server *s); /* NULL is allowed */

/* Carries out one request of len bytes (a whole FUSE message by its own header, or nonsense). The reply goes to `reply`, which
 * has FS_MAX_MESSAGE bytes and is aligned to 8; its length is returned, 0 when there is none. */
size_t fs_server_handle(struct fs_server *s, const void *request, size_t len, void *reply);

#endif
