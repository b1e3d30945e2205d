/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the FUSE server share: server.c (dispatch, INIT), ops_name.c (names in directories), ops_attr.c (attributes,
 * extended ones, statfs), ops_file.c (open files), ops_dir.c (open directories), state.c (all of it in and out). */
#ifndef FS_SERVER_INTERNAL_H
#define FS_SERVER_INTERNAL_H

#include <linux/fuse.h>
#include <sys/types.h>

#include "fs/inode.h"
#include "fs/server.h"

struct fs_handle {
	struct inode *inode; /* NULL: free */
	int fd;              /* owned */
	uint32_t turn;       /* uses of this place: the high half of the handle's number */
	bool dir;
	int flags;           /* it was opened with */
	off_t pos;           /* directories: where the next read goes on without a seek; -1: unknown */
};

struct fs_server {
	struct fs_options opt;
	struct inodes inodes;
	struct fs_handle *handle;
	uint32_t *free_handle; /* a stack of places */
	uint32_t n_free, max_handles;
	uid_t uid;             /* this process's own */
	gid_t gid;
	bool fsetid;           /* the capability FSETID is there to be raised */
	uint8_t *dents;        /* for getdents64(2) */
	struct fs_loading *loading; /* between the first and the last LOAD; NULL otherwise */
};

/* One request and what is made of it. */
struct fs_call {
	struct fs_server *s;
	struct fuse_in_header in;
	const uint8_t *p;      /* what is left of the body */
	size_t left;
	struct inode *inode;   /* that the header names; NULL for requests without one */
	uint8_t *out;          /* the reply's body */
	size_t out_len, out_max;
};

/* Takes n bytes of the body; false when there are fewer. */
bool fs_take(struct fs_call *c, void *to, size_t n);
/* Takes a NUL-terminated string; NULL when there is none. */
const char *fs_take_string(struct fs_call *c);
/* Takes the name of a directory entry: no '/', not ".", "..", empty or too long. 0 and *name, or a negative errno. */
int fs_take_name(struct fs_call *c, const char **name);
/* Appends n bytes to the reply; what does not fit is a mistake of ours and ends as -EIO. */
int fs_give(struct fs_call *c, const void *p, size_t n);

void fs_fill_attr(const struct statx *st, struct fuse_attr *a);
void fs_timeout(const struct fs_server *s, uint64_t *sec, uint32_t *nsec);
/* Fills an entry for name in parent, counts the lookup. 0 or a negative errno. */
int fs_fill_entry(struct fs_server *s, struct inode *parent, const char *name, const struct statx *st, struct fuse_entry_out *e);

/* The handle of a number the guest sent, or NULL. */
struct fs_handle *fs_handle_get(struct fs_server *s, uint64_t fh, bool dir);
/* Makes one; fd is owned by it, flags are those of open(2). Its number, or 0 when there are too many, and fd is closed. */
uint64_t fs_handle_add(struct fs_server *s, struct inode *i, int fd, int flags, bool dir);
void fs_handle_close(struct fs_server *s, struct fs_handle *h);

/* The name of a descriptor in the working directory, proc_fd: for calls that take no descriptor but follow this link to it. */
struct fs_fd_name {
	char s[16];
};
struct fs_fd_name fs_fd_name(int fd);
/* Opens a regular file or directory for real. A descriptor or a negative errno. */
int fs_reopen(struct fs_server *s, struct inode *i, int flags);
/* Between these two, files are created as the request's user. 0 or a negative errno; on failure nothing has changed. */
int fs_become_caller(const struct fs_call *c);
void fs_become_self(const struct fs_call *c);
/* Raises or lowers the capability to keep set-id bits. It is down but for a chmod, so that writing clears them. */
void fs_raise_fsetid(const struct fs_server *s, bool up);

/* Operations: 0 or a negative errno; the reply's body is in c->out. */
int fs_lookup(struct fs_call *c);
int fs_mknod(struct fs_call *c);
int fs_mkdir(struct fs_call *c);
int fs_symlink(struct fs_call *c);
int fs_link(struct fs_call *c);
int fs_unlink(struct fs_call *c);
int fs_rmdir(struct fs_call *c);
int fs_rename(struct fs_call *c);
int fs_rename2(struct fs_call *c);
int fs_readlink(struct fs_call *c);
int fs_create(struct fs_call *c);

int fs_getattr(struct fs_call *c);
int fs_setattr(struct fs_call *c);
int fs_statfs(struct fs_call *c);
int fs_getxattr(struct fs_call *c);
int fs_setxattr(struct fs_call *c);
int fs_listxattr(struct fs_call *c);
int fs_removexattr(struct fs_call *c);

int fs_open(struct fs_call *c);
int fs_read(struct fs_call *c);
int fs_write(struct fs_call *c);
int fs_release(struct fs_call *c);
int fs_fsync(struct fs_call *c);
int fs_fallocate(struct fs_call *c);
int fs_lseek(struct fs_call *c);
int fs_copy_file_range(struct fs_call *c);
/* Fills the reply to OPEN for a handle on i. */
void fs_fill_open(struct fs_server *s, struct inode *i, int fd, uint64_t fh, bool may_keep, struct fuse_open_out *o);

int fs_opendir(struct fs_call *c);
int fs_readdir(struct fs_call *c);
int fs_readdirplus(struct fs_call *c);
int fs_releasedir(struct fs_call *c);
int fs_fsyncdir(struct fs_call *c);

/* state.c */
int fs_save(struct fs_call *c);
int fs_load(struct fs_call *c);
void fs_loading_abort(struct fs_server *s);

/* server.c: forgets all. */
void fs_start_afresh(struct fs_server *s);

#endif
