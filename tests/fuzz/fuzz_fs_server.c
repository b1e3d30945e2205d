/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest against the server of a shared directory: an input is a row of requests, {u8 opcode, u8 node, u8 length, bytes}, on
 * a small tree that holds links to the outside. Node ids and handles are mostly ones that exist. Whatever happens, replies are well
 * formed, the file outside stays as it is, and no descriptor stays open.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "fs/server.h"

#define MAX_CALLS 64
#define KNOWN     16

struct world {
	struct fs_server *s;
	uint64_t node[KNOWN], fh[KNOWN];
	unsigned n_nodes, n_fhs;
	uint8_t *reply;
};

static char top[64];

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void remove_top(void)
{
	rmdir(top);
}

/* One directory for the process; its contents are made anew for each input. */
static void make_top(void)
{
	if (top[0])
		return;
	strcpy(top, "/dev/shm/caisson-fuzz-XXXXXX");
	if (!mkdtemp(top)) {
		strcpy(top, "/tmp/caisson-fuzz-XXXXXX");
		must(mkdtemp(top) != NULL);
	}
	atexit(remove_top);
}

static void clear(int dir)
{
	DIR *d = fdopendir(dir);
	must(d != NULL);
	rewinddir(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) == 0)
			continue;
		fchmodat(dirfd(d), e->d_name, 0700, 0);
		int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0)
			clear(sub);
		unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	closedir(d);
}

static void put_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* The shared directory: a file, a directory with one, links out, a hard link. */
static int make_tree(int *outside)
{
	make_top();
	int t = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(t >= 0);
	clear(dup(t));
	put_file(t, "secret", "secret");
	must(mkdirat(t, "shared", 0755) == 0);
	int s = openat(t, "shared", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put_file(s, "f", "some text");
	must(mkdirat(s, "d", 0755) == 0 && symlinkat("../secret", s, "l") == 0 && symlinkat("..", s, "up") == 0);
	int d = openat(s, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put_file(d, "g", "more");
	must(linkat(s, "f", d, "h", 0) == 0 && symlinkat("../../secret", d, "m") == 0);
	close(d);
	*outside = t;
	return s;
}

static void check_outside(int t)
{
	char text[16] = {0};
	struct stat st;
	int fd = openat(t, "secret", O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, text, sizeof(text)) == 6 && !memcmp(text, "secret", 6));
	must(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644 && st.st_nlink == 1);
	close(fd);
	unsigned n = 0;
	lseek(t, 0, SEEK_SET);
	DIR *d = fdopendir(dup(t));
	while (readdir(d))
		n++;
	closedir(d);
	must(n == 4);
}

/* Remembers what a reply gave. */
static void learn(struct world *w, uint32_t opcode, size_t len)
{
	const uint8_t *body = w->reply + sizeof(struct fuse_out_header);
	size_t n = len - sizeof(struct fuse_out_header);
	uint64_t v;
	if (n >= sizeof(struct fuse_entry_out) && opcode != FUSE_READ && opcode != FUSE_READDIR && opcode != FUSE_READLINK) {
		memcpy(&v, body, 8);
		w->node[w->n_nodes++ % KNOWN] = v;
	}
	size_t at = opcode == FUSE_CREATE ? sizeof(struct fuse_entry_out) : 0;
	if ((opcode == FUSE_CREATE || opcode == FUSE_OPEN || opcode == FUSE_OPENDIR) && n >= at + 8) {
		memcpy(&v, body + at, 8);
		w->fh[w->n_fhs++ % KNOWN] = v;
	}
}

static void one(struct world *w, const uint8_t *p, size_t n, uint32_t opcode, uint8_t node)
{
	if (opcode >= 0xfe)
		opcode = opcode == 0xfe ? FS_OP_SAVE : FS_OP_LOAD;
	struct fuse_in_header h = {.opcode = opcode, .unique = 5, .uid = getuid(), .gid = getgid()};
	h.len = (uint32_t)(sizeof(h) + n);
	h.nodeid = opcode == FS_OP_LOAD ? node & 3 : opcode == FS_OP_SAVE ? 0 : node & 0x80 ? (uint64_t)node << 32 | node : w->node[node % KNOWN];
	uint8_t *m = malloc(h.len);
	must(m != NULL);
	memcpy(m, &h, sizeof(h));
	memcpy(m + sizeof(h), p, n);
	/* The first eight bytes of many bodies are a handle, or a node. */
	if (n >= 8 && (node & 0x40)) {
		uint64_t v = m[sizeof(h)] & 1 ? w->fh[m[sizeof(h)] >> 1 & (KNOWN - 1)] : w->node[m[sizeof(h)] >> 1 & (KNOWN - 1)];
		memcpy(m + sizeof(h), &v, 8);
	}
	size_t len = fs_server_handle(w->s, m, h.len, w->reply);
	free(m);
	if (!len)
		return;
	struct fuse_out_header o;
	memcpy(&o, w->reply, sizeof(o));
	must(len >= sizeof(o) && len <= FS_MAX_MESSAGE && o.len == len && o.unique == 5 && o.error <= 0 && o.error > -4096);
	must(!o.error || len == sizeof(o));
	if (!o.error)
		learn(w, opcode, len);
}

static int lowest_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {.reply = aligned_alloc(8, FS_MAX_MESSAGE)};
	int outside, before = lowest_fd(), cwd = open(".", O_PATH | O_CLOEXEC);
	int root = make_tree(&outside), proc = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool readonly = size > 1 && data[0] == 0xff && data[1] == 0xff;
	struct fs_options o = {.root_fd = root, .proc_fd = proc, .readonly = readonly, .cache_ms = 10, .max_inodes = 200, .max_fds = 128};
	must(w.reply && cwd >= 0 && proc >= 0);
	/* Space is not what is tried here. */
	struct rlimit most = {1 << 20, 1 << 20};
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &most);
	w.s = fs_server_new(&o, NULL);
	must(w.s != NULL);
	for (unsigned i = 0; i < KNOWN; i++)
		w.node[i] = 1;
	for (unsigned i = 0; i < MAX_CALLS && size >= 3; i++) {
		uint8_t opcode = data[0], node = data[1];
		size_t n = data[2] < size - 3 ? data[2] : size - 3;
		one(&w, data + 3, n, opcode, node);
		data += 3 + n;
		size -= 3 + n;
	}
	fs_server_free(w.s);
	free(w.reply);
	must(fchdir(cwd) == 0);
	close(cwd);
	close(proc);
	check_outside(outside);
	clear(dup(outside));
	close(outside);
	must(lowest_fd() == before);
	return 0;
}
