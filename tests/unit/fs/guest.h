/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest's kernel asks the FUSE server of a shared directory, by hand: each test has a server of its own on a temporary directory.
 * Functions that ask return what the server said, 0 or a negative errno; what it gave is in `reply`.
 */
#ifndef TESTS_FS_GUEST_H
#define TESTS_FS_GUEST_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/server.h"

extern char top[], shared[64]; /* the test's directory, and in it the shared one */
extern struct fs_server *s;
extern uint8_t *reply; /* the last reply, with its header */
extern size_t reply_len;

/* For cmocka: a directory with a server, and its removal. */
int setup(void **state);
int teardown(void **state);
/* A new server, instead of the one there was. */
void start(bool readonly, uint32_t max_inodes, unsigned max_fds);
/* A request piece by piece. */
void begin(uint32_t opcode, uint64_t nodeid);
void put(const void *p, size_t n);
void put_name(const char *name);
/* Sends what was put; the error, or 0. */
int end(void);
/* The reply's body, which must have n bytes. */
const void *body(size_t n);
/* A request of a structure and up to two names. */
int ask(uint32_t opcode, uint64_t nodeid, const void *in, size_t n, const char *name, const char *name2);
struct fuse_entry_out entry(void);
/* The node id of name in dir. */
int64_t look_up(uint64_t dir, const char *name);
uint64_t must_find(uint64_t dir, const char *name);
int create(uint64_t dir, const char *name, int flags, uint64_t *id, uint64_t *fh);
int open_node(uint64_t id, int flags, uint64_t *fh, uint32_t *open_flags);
int write_at(uint64_t id, uint64_t fh, uint64_t off, const void *p, uint32_t n, uint32_t flags);
int read_at(uint64_t id, uint64_t fh, uint64_t off, uint32_t n);
int release(uint32_t opcode, uint64_t id, uint64_t fh);
void forget(uint64_t id, uint64_t n);
int get_attr(uint64_t id, struct fuse_attr *a);
/* The path of a name in the shared directory on the host. */
const char *at(const char *name);
void host_file(const char *name, const char *text);
unsigned open_fds(void);

#endif
