/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"

char top[] = "/tmp/caisson-fs-test-XXXXXX", shared[64];
static char home[4096];
static int proc_fd;
struct fs_server *s;
static uint8_t request[FS_MAX_MESSAGE];
static size_t request_len;
uint8_t *reply;
size_t reply_len;

void start(bool readonly, uint32_t max_inodes, unsigned max_fds)
{
	struct cai_error err;
	fs_server_free(s);
	struct fs_options o = {
		.root_fd = open(shared, O_PATH | O_DIRECTORY | O_CLOEXEC),
		.proc_fd = proc_fd,
		.readonly = readonly,
		.cache_ms = 10,
		.max_inodes = max_inodes,
		.max_fds = max_fds,
	};
	s = fs_server_new(&o, &err);
	assert_non_null(s);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

int setup(void **state)
{
	strcpy(top + strlen(top) - 6, "XXXXXX");
	assert_non_null(getcwd(home, sizeof(home)));
	assert_non_null(mkdtemp(top));
	snprintf(shared, sizeof(shared), "%s/shared", top);
	assert_int_equal(mkdir(shared, 0755), 0);
	proc_fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	reply = aligned_alloc(8, FS_MAX_MESSAGE);
	start(false, 100000, 1024);
	return 0;
}

int teardown(void **state)
{
	fs_server_free(s);
	s = NULL;
	assert_int_equal(chdir(home), 0);
	close(proc_fd);
	free(reply);
	return nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void begin(uint32_t opcode, uint64_t nodeid)
{
	struct fuse_in_header h = {.opcode = opcode, .unique = 77, .nodeid = nodeid, .uid = getuid(), .gid = getgid()};
	memcpy(request, &h, sizeof(h));
	request_len = sizeof(h);
}

void put(const void *p, size_t n)
{
	memcpy(request + request_len, p, n);
	request_len += n;
}

void put_name(const char *name)
{
	put(name, strlen(name) + 1);
}

/* Sends what was put; the reply's error. Its body is at reply + 16. */
int end(void)
{
	struct fuse_out_header h;
	store_le32(request, (uint32_t)request_len);
	/* In memory of its own size, so that a read past the end is seen. */
	uint8_t *exact = malloc(request_len);
	memcpy(exact, request, request_len);
	reply_len = fs_server_handle(s, exact, request_len, reply);
	free(exact);
	if (!reply_len)
		return 0;
	assert_true(reply_len >= sizeof(h) && reply_len <= FS_MAX_MESSAGE);
	memcpy(&h, reply, sizeof(h));
	assert_int_equal(h.len, reply_len);
	assert_int_equal(h.unique, 77);
	assert_true(h.error <= 0 && (!h.error || reply_len == sizeof(h)));
	return h.error;
}

const void *body(size_t n)
{
	assert_true(reply_len >= sizeof(struct fuse_out_header) + n);
	return reply + sizeof(struct fuse_out_header);
}

/* A request with a structure and up to two names; error or 0. */
int ask(uint32_t opcode, uint64_t nodeid, const void *in, size_t n, const char *name, const char *name2)
{
	begin(opcode, nodeid);
	put(in, n);
	if (name)
		put_name(name);
	if (name2)
		put_name(name2);
	return end();
}

struct fuse_entry_out entry(void)
{
	struct fuse_entry_out e;
	memcpy(&e, body(sizeof(e)), sizeof(e));
	return e;
}

/* The node id of name in dir, or a negative errno. */
int64_t look_up(uint64_t dir, const char *name)
{
	int r = ask(FUSE_LOOKUP, dir, "", 0, name, NULL);
	return r < 0 ? r : (int64_t)entry().nodeid;
}

uint64_t must_find(uint64_t dir, const char *name)
{
	int64_t id = look_up(dir, name);
	if (id <= 0)
		fail_msg("%s: %s", name, strerror((int)-id));
	return (uint64_t)id;
}

int create(uint64_t dir, const char *name, int flags, uint64_t *id, uint64_t *fh)
{
	struct fuse_create_in in = {.flags = (uint32_t)flags, .mode = 0644};
	int r = ask(FUSE_CREATE, dir, &in, sizeof(in), name, NULL);
	if (r < 0)
		return r;
	struct fuse_open_out o;
	memcpy(&o, (const uint8_t *)body(sizeof(struct fuse_entry_out) + sizeof(o)) + sizeof(struct fuse_entry_out), sizeof(o));
	*id = entry().nodeid;
	*fh = o.fh;
	return 0;
}

int open_node(uint64_t id, int flags, uint64_t *fh, uint32_t *open_flags)
{
	struct fuse_open_in in = {.flags = (uint32_t)flags};
	struct fuse_open_out o;
	int r = ask(FUSE_OPEN, id, &in, sizeof(in), NULL, NULL);
	if (r < 0)
		return r;
	memcpy(&o, body(sizeof(o)), sizeof(o));
	*fh = o.fh;
	if (open_flags)
		*open_flags = o.open_flags;
	return 0;
}

int write_at(uint64_t id, uint64_t fh, uint64_t off, const void *p, uint32_t n, uint32_t flags)
{
	struct fuse_write_in in = {.fh = fh, .offset = off, .size = n, .flags = flags};
	begin(FUSE_WRITE, id);
	put(&in, sizeof(in));
	put(p, n);
	int r = end();
	return r < 0 ? r : (int)((const struct fuse_write_out *)body(8))->size;
}

int read_at(uint64_t id, uint64_t fh, uint64_t off, uint32_t n)
{
	struct fuse_read_in in = {.fh = fh, .offset = off, .size = n};
	int r = ask(FUSE_READ, id, &in, sizeof(in), NULL, NULL);
	return r < 0 ? r : (int)(reply_len - sizeof(struct fuse_out_header));
}

int release(uint32_t opcode, uint64_t id, uint64_t fh)
{
	struct fuse_release_in in = {.fh = fh};
	return ask(opcode, id, &in, sizeof(in), NULL, NULL);
}

void forget(uint64_t id, uint64_t n)
{
	struct fuse_forget_in in = {.nlookup = n};
	assert_int_equal(ask(FUSE_FORGET, id, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(reply_len, 0);
}

int get_attr(uint64_t id, struct fuse_attr *a)
{
	struct fuse_getattr_in in = {0};
	int r = ask(FUSE_GETATTR, id, &in, sizeof(in), NULL, NULL);
	if (r == 0)
		memcpy(a, (const uint8_t *)body(sizeof(struct fuse_attr_out)) + offsetof(struct fuse_attr_out, attr), sizeof(*a));
	return r;
}

const char *at(const char *name)
{
	static char path[4][512];
	static unsigned turn;
	char *p = path[turn++ % 4];
	snprintf(p, 512, "%s/%s", shared, name);
	return p;
}

void host_file(const char *name, const char *text)
{
	int fd = open(at(name), O_CREAT | O_TRUNC | O_WRONLY, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

unsigned open_fds(void)
{
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
