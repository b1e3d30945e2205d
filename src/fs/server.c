/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: dispatch.
 *
 * A table says for each operation whether it needs a node and whether it writes; what is not in it is ENOSYS, which Linux
 * remembers and then does without. Each operation takes its arguments off the request through three functions that check, and
 * appends its reply through one.
 *
 * The state after INIT is that of a new server, so a guest that mounts again starts afresh.
 */
#include "fs/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define MINOR          38
#define MAX_BACKGROUND 64
#define DENTS_BYTES    (64u << 10)

/* What this server relies on. AUTO_INVAL_DATA: pages of a file that the host changed are dropped. HANDLE_KILLPRIV_V2: writing
 * clears set-id bits here, so the guest need not ask for security.capability before each write. */
#define INIT_FLAGS                                                                                                 \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |    \
	 FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2)

bool fs_take(struct fs_call *c, void *to, size_t n)
{
	if (c->left < n)
		return false;
	memcpy(to, c->p, n);
	c->p += n;
	c->left -= n;
	return true;
}

const char *fs_take_string(struct fs_call *c)
{
	const uint8_t *end = memchr(c->p, 0, c->left);
	if (!end)
		return NULL;
	const char *s = (const char *)c->p;
	c->left -= (size_t)(end + 1 - c->p);
	c->p = end + 1;
	return s;
}

int fs_take_name(struct fs_call *c, const char **name)
{
	const char *s = fs_take_string(c);
	if (!s || !*s || strchr(s, '/') || !strcmp(s, ".") || !strcmp(s, ".."))
		return -EINVAL;
	if (strlen(s) > FS_MAX_NAME)
		return -ENAMETOOLONG;
	*name = s;
	return 0;
}

int fs_give(struct fs_call *c, const void *p, size_t n)
{
	if (n > c->out_max - c->out_len)
		return -EIO;
	memcpy(c->out + c->out_len, p, n);
	c->out_len += n;
	return 0;
}

void fs_timeout(const struct fs_server *s, uint64_t *sec, uint32_t *nsec)
{
	*sec = s->opt.cache_ms / 1000;
	*nsec = s->opt.cache_ms % 1000 * 1000000;
}

struct fs_fd_name fs_fd_name(int fd)
{
	struct fs_fd_name n;
	snprintf(n.s, sizeof(n.s), "%d", fd);
	return n;
}

int fs_reopen(struct fs_server *s, struct inode *i, int flags)
{
	if (i->type != S_IFREG && i->type != S_IFDIR)
		return i->type == S_IFLNK ? -ELOOP : -EPERM;
	int fd = inode_fd(&s->inodes, i);
	if (fd < 0)
		return fd;
	int real = openat(s->opt.proc_fd, fs_fd_name(fd).s, (flags & ~O_NOFOLLOW) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return real < 0 ? -errno : real;
}

static bool set_fsids(uid_t uid, gid_t gid)
{
	/* Neither call says whether it worked; asking for an impossible id does. */
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	return (gid_t)syscall(SYS_setfsgid, -1) == gid && (uid_t)syscall(SYS_setfsuid, -1) == uid;
}

int fs_become_caller(const struct fs_call *c)
{
	if (!c->s->opt.switch_ids || (c->in.uid == c->s->uid && c->in.gid == c->s->gid))
		return 0;
	if (set_fsids(c->in.uid, c->in.gid))
		return 0;
	set_fsids(c->s->uid, c->s->gid);
	return -EPERM;
}

void fs_become_self(const struct fs_call *c)
{
	if (c->s->opt.switch_ids && (c->in.uid != c->s->uid || c->in.gid != c->s->gid))
		set_fsids(c->s->uid, c->s->gid);
}

void fs_raise_fsetid(const struct fs_server *s, bool up)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	if (!s->fsetid || syscall(SYS_capget, &h, d) < 0)
		return;
	uint32_t bit = 1u << CAP_FSETID;
	d[0].effective = up ? d[0].effective | (d[0].permitted & bit) : d[0].effective & ~bit;
	syscall(SYS_capset, &h, d);
}

struct fs_handle *fs_handle_get(struct fs_server *s, uint64_t fh, bool dir)
{
	uint32_t at = (uint32_t)fh - 1;
	if (at >= s->max_handles || !s->handle[at].inode || s->handle[at].turn != fh >> 32 || s->handle[at].dir != dir)
		return NULL;
	return &s->handle[at];
}

uint64_t fs_handle_add(struct fs_server *s, struct inode *i, int fd, int flags, bool dir)
{
	if (!s->n_free) {
		close(fd);
		return 0;
	}
	uint32_t at = s->free_handle[--s->n_free];
	struct fs_handle *h = &s->handle[at];
	*h = (struct fs_handle){.inode = i, .fd = fd, .turn = h->turn + 1, .flags = flags, .dir = dir};
	inode_opened(&s->inodes, i);
	return (uint64_t)h->turn << 32 | (at + 1);
}

void fs_handle_close(struct fs_server *s, struct fs_handle *h)
{
	close(h->fd);
	inode_closed(&s->inodes, h->inode);
	h->inode = NULL;
	s->free_handle[s->n_free++] = (uint32_t)(h - s->handle);
}

void fs_start_afresh(struct fs_server *s)
{
	fs_loading_abort(s);
	for (uint32_t k = 0; k < s->max_handles; k++)
		if (s->handle[k].inode)
			fs_handle_close(s, &s->handle[k]);
	inodes_clear(&s->inodes);
}

static int fs_init(struct fs_call *c)
{
	struct {
		uint32_t major, minor, max_readahead, flags;
	} in; /* the first fields of fuse_init_in, which older guests end after */
	struct fuse_init_out o = {.major = FUSE_KERNEL_VERSION, .minor = MINOR};
	if (!fs_take(c, &in, sizeof(in)))
		return -EINVAL;
	if (in.major < FUSE_KERNEL_VERSION)
		return -EPROTO;
	fs_start_afresh(c->s);
	if (in.major == FUSE_KERNEL_VERSION) {
		o.max_readahead = in.max_readahead < FS_MAX_IO ? in.max_readahead : FS_MAX_IO;
		o.flags = in.flags & INIT_FLAGS;
		o.max_background = MAX_BACKGROUND;
		o.congestion_threshold = MAX_BACKGROUND * 3 / 4;
		o.max_write = FS_MAX_IO;
		o.time_gran = 1;
		o.max_pages = FS_MAX_IO / 4096;
	}
	return fs_give(c, &o, sizeof(o));
}

static int fs_destroy(struct fs_call *c)
{
	fs_start_afresh(c->s);
	return 0;
}

static int fs_forget(struct fs_call *c)
{
	struct fuse_forget_in in;
	if (c->inode && fs_take(c, &in, sizeof(in)))
		inode_forget(&c->s->inodes, c->inode, in.nlookup);
	return 0;
}

static int fs_batch_forget(struct fs_call *c)
{
	struct fuse_batch_forget_in in;
	struct fuse_forget_one one;
	if (!fs_take(c, &in, sizeof(in)))
		return 0;
	for (uint32_t k = 0; k < in.count && fs_take(c, &one, sizeof(one)); k++) {
		struct inode *i = inode_get(&c->s->inodes, one.nodeid);
		if (i)
			inode_forget(&c->s->inodes, i, one.nlookup);
	}
	return 0;
}

static int fs_nothing(struct fs_call *c)
{
	return 0;
}

enum { NODE = 1, WRITES = 2, SILENT = 4 };

static const struct op {
	int (*fn)(struct fs_call *c);
	unsigned is;
} ops[] = {
	[FUSE_LOOKUP] = {fs_lookup, NODE},
	[FUSE_FORGET] = {fs_forget, SILENT},
	[FUSE_GETATTR] = {fs_getattr, NODE},
	[FUSE_SETATTR] = {fs_setattr, NODE | WRITES},
	[FUSE_READLINK] = {fs_readlink, NODE},
	[FUSE_SYMLINK] = {fs_symlink, NODE | WRITES},
	[FUSE_MKNOD] = {fs_mknod, NODE | WRITES},
	[FUSE_MKDIR] = {fs_mkdir, NODE | WRITES},
	[FUSE_UNLINK] = {fs_unlink, NODE | WRITES},
	[FUSE_RMDIR] = {fs_rmdir, NODE | WRITES},
	[FUSE_RENAME] = {fs_rename, NODE | WRITES},
	[FUSE_LINK] = {fs_link, NODE | WRITES},
	[FUSE_OPEN] = {fs_open, NODE},
	[FUSE_READ] = {fs_read, NODE},
	[FUSE_WRITE] = {fs_write, NODE | WRITES},
	[FUSE_STATFS] = {fs_statfs, NODE},
	[FUSE_RELEASE] = {fs_release, 0},
	[FUSE_FSYNC] = {fs_fsync, NODE},
	[FUSE_SETXATTR] = {fs_setxattr, NODE | WRITES},
	[FUSE_GETXATTR] = {fs_getxattr, NODE},
	[FUSE_LISTXATTR] = {fs_listxattr, NODE},
	[FUSE_REMOVEXATTR] = {fs_removexattr, NODE | WRITES},
	[FUSE_INIT] = {fs_init, 0},
	[FUSE_OPENDIR] = {fs_opendir, NODE},
	[FUSE_READDIR] = {fs_readdir, NODE},
	[FUSE_RELEASEDIR] = {fs_releasedir, 0},
	[FUSE_FSYNCDIR] = {fs_fsyncdir, NODE},
	[FUSE_CREATE] = {fs_create, NODE | WRITES},
	[FUSE_INTERRUPT] = {fs_nothing, SILENT},
	[FUSE_DESTROY] = {fs_destroy, 0},
	[FUSE_BATCH_FORGET] = {fs_batch_forget, SILENT},
	[FUSE_FALLOCATE] = {fs_fallocate, NODE | WRITES},
	[FUSE_READDIRPLUS] = {fs_readdirplus, NODE},
	[FUSE_RENAME2] = {fs_rename2, NODE | WRITES},
	[FUSE_LSEEK] = {fs_lseek, NODE},
	[FUSE_COPY_FILE_RANGE] = {fs_copy_file_range, NODE | WRITES},
};

static int dispatch(struct fs_call *c, const struct op *op)
{
	c->inode = inode_get(&c->s->inodes, c->in.nodeid);
	if ((op->is & NODE) && !c->inode)
		return -ESTALE;
	if ((op->is & WRITES) && c->s->opt.readonly)
		return -EROFS;
	return op->fn(c);
}

size_t fs_server_handle(struct fs_server *s, const void *request, size_t len, void *reply)
{
	static const struct op none, save = {fs_save, 0}, load = {fs_load, 0};
	struct fs_call c = {.s = s, .p = request, .left = len};
	struct fuse_out_header h = {0};

	c.out = (uint8_t *)reply + sizeof(h);
	c.out_max = FS_MAX_MESSAGE - sizeof(h);
	if (!fs_take(&c, &c.in, sizeof(c.in)))
		return 0;
	const struct op *op = &none;
	if (c.in.opcode < ARRAY_LEN(ops))
		op = &ops[c.in.opcode];
	else if (c.in.opcode == FS_OP_SAVE || c.in.opcode == FS_OP_LOAD)
		op = c.in.opcode == FS_OP_SAVE ? &save : &load;
	/* Between two parts of a state there is none to work on. */
	if (s->loading && op != &load)
		fs_start_afresh(s);
	int r = c.in.len != len ? -EINVAL : op->fn ? dispatch(&c, op) : -ENOSYS;
	if (op->is & SILENT)
		return 0;
	/* What file systems say that FUSE has another meaning for, or none. */
	if (r == -ENOSYS && op->fn)
		r = -EOPNOTSUPP;
	h.len = (uint32_t)(sizeof(h) + (r < 0 ? 0 : c.out_len));
	h.error = r;
	h.unique = c.in.unique;
	memcpy(reply, &h, sizeof(h));
	return h.len;
}

static bool have_fsetid(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	return syscall(SYS_capget, &h, d) == 0 && (d[0].permitted & 1u << CAP_FSETID);
}

struct fs_server *fs_server_new(const struct fs_options *opt, struct cai_error *err)
{
	struct fs_server *s = calloc(1, sizeof(*s));
	if (!s) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->opt = *opt;
	s->uid = geteuid();
	s->gid = getegid();
	s->fsetid = have_fsetid();
	/* A quarter for handles, half for inodes, the rest for what an operation opens in passing. */
	unsigned fds = opt->max_fds < 128 ? 128 : opt->max_fds;
	s->max_handles = fds / 8;
	s->handle = calloc(s->max_handles, sizeof(*s->handle));
	s->free_handle = calloc(s->max_handles, sizeof(*s->free_handle));
	s->dents = malloc(DENTS_BYTES);
	if (!s->handle || !s->free_handle || !s->dents) {
		cai_fail(err, ENOMEM, "out of memory");
	} else if (fchdir(opt->proc_fd) < 0) {
		cai_fail_errno(err, errno, "cannot use /proc/self/fd");
	} else {
		for (uint32_t k = 0; k < s->max_handles; k++)
			s->free_handle[s->n_free++] = s->max_handles - 1 - k;
		int r = inodes_init(&s->inodes, opt->root_fd, opt->max_inodes, fds / 2);
		if (r == 0) {
			fs_raise_fsetid(s, false);
			return s;
		}
		cai_fail_errno(err, -r, "cannot examine the directory to be shared");
	}
	free(s->handle);
	free(s->free_handle);
	free(s->dents);
	free(s);
	return NULL;
}

void fs_server_free(struct fs_server *s)
{
	if (!s)
		return;
	fs_start_afresh(s);
	inodes_fini(&s->inodes);
	free(s->handle);
	free(s->free_handle);
	free(s->dents);
	free(s);
}
