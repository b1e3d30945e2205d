/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image as a directory, for users who may not mount EROFS: no user namespace may.
 *
 * Theory of operation: the tree is written by a child in a user namespace with the same ids as the user's containers get, so owners are right where a
 * range of ids is granted. The child is confined like a container, with a Landlock domain of the one directory, before it reads a byte of the
 * image. It writes beside the final name, which appears whole or not at all. Left out: device nodes, which nobody could open, and extended
 * attributes, whose effects (capabilities) no_new_privs takes anyway.
 *
 * Removing such a tree, or what a container of an ordinary user has left in its upper directory, takes the same namespace.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "image/erofs_read.h"
#include "container/internal.h"

#define MAX_DEPTH    512
#define MAX_ENTRIES  (8u << 20)
#define MAX_LINK     4096
#define LINK_SLOTS   65536u
#define REMOVE_DEPTH 64

/* A file with several names: the first one that was made. */
struct first_name {
	struct first_name *next;
	uint64_t nid;
	char path[];
};

struct unpack {
	struct erofs_reader image;
	int top; /* the tree being written */
	uint64_t bytes_left, entries;
	bool owners; /* a range of ids is mapped */
	struct first_name **seen;
	/* where it is now */
	int dir;
	char path[MAX_LINK];
	unsigned depth;
};

static int visit(const char *name, uint64_t nid, void *arg, struct cai_error *err);

static int copy_contents(struct unpack *u, const struct erofs_node *n, int out, struct cai_error *err)
{
	if (ftruncate(out, (off_t)n->size) < 0)
		return cai_fail_errno(err, errno, "cannot write %s", u->path);
	for (uint64_t off = 0; off < n->size;) {
		struct erofs_extent x;
		if (erofs_read_extent(&u->image, n, off, &x, err) < 0)
			return -1;
		if (!x.hole && x.len > u->bytes_left)
			return cai_fail(err, EFBIG, "the image unpacks to more than it can hold");
		u->bytes_left -= x.hole ? 0 : x.len;
		for (uint64_t done = 0; !x.hole && done < x.len;) {
			off_t from = (off_t)(x.at + done), to = (off_t)(off + done);
			ssize_t r = copy_file_range(u->image.fd, &from, out, &to, (size_t)(x.len - done), 0);
			if (r < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
				char buf[65536];
				size_t want = x.len - done < sizeof(buf) ? (size_t)(x.len - done) : sizeof(buf);
				r = file_pread_full(u->image.fd, buf, want, (off_t)(x.at + done));
				if (r > 0 && pwrite(out, buf, (size_t)r, (off_t)(off + done)) != r)
					r = -1;
			}
			if (r <= 0)
				return cai_fail_errno(err, r ? errno : EIO, "cannot write %s", u->path);
			done += (uint64_t)r;
		}
		off += x.len;
	}
	return 0;
}

/* Owner, mode and time, of what was just made and is known by descriptor or name. */
static int dress(struct unpack *u, const struct erofs_node *n, const char *name, int fd, struct cai_error *err)
{
	struct timespec t[2] = {{.tv_sec = n->mtime, .tv_nsec = n->mtime_ns}, {.tv_sec = n->mtime, .tv_nsec = n->mtime_ns}};
	int r = !u->owners ? 0 : fd >= 0 ? fchown(fd, n->uid, n->gid) : fchownat(u->dir, name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW);
	if (r < 0 && errno != EINVAL) /* EINVAL: an id that is not mapped; it stays the container's root's */
		return cai_fail_errno(err, errno, "cannot give %s its owner", u->path);
	if (fd >= 0 && fchmod(fd, n->mode & 07777) < 0)
		return cai_fail_errno(err, errno, "cannot set the mode of %s", u->path);
	if ((fd >= 0 ? futimens(fd, t) : utimensat(u->dir, name, t, AT_SYMLINK_NOFOLLOW)) < 0)
		return cai_fail_errno(err, errno, "cannot set the time of %s", u->path);
	return 0;
}

static int make_directory(struct unpack *u, const struct erofs_node *n, const char *name, struct cai_error *err)
{
	if (u->depth == MAX_DEPTH)
		return cai_fail(err, ELOOP, "the image's directories are nested too deeply");
	if (mkdirat(u->dir, name, 0700) < 0)
		return cai_fail_errno(err, errno, "cannot make %s", u->path);
	cleanup_close int fd = openat(u->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s", u->path);
	int parent = u->dir;
	u->dir = fd;
	u->depth++;
	int r = erofs_read_dir(&u->image, n, visit, u, err);
	u->depth--;
	u->dir = parent;
	return r < 0 ? -1 : dress(u, n, name, fd, err);
}

/* 1 when it was linked to a name that is there already. */
static int link_to_first(struct unpack *u, const struct erofs_node *n, const char *name, struct cai_error *err)
{
	struct first_name **slot = &u->seen[n->nid % LINK_SLOTS], *f;
	for (f = *slot; f; f = f->next)
		if (f->nid == n->nid)
			return linkat(u->top, f->path, u->dir, name, 0) < 0 ? cai_fail_errno(err, errno, "cannot make %s", u->path) : 1;
	size_t size = strlen(u->path) + 1;
	f = malloc(sizeof(*f) + size);
	if (!f)
		return cai_fail(err, ENOMEM, "out of memory");
	f->nid = n->nid;
	memcpy(f->path, u->path, size);
	f->next = *slot;
	*slot = f;
	return 0;
}

static int make_entry(struct unpack *u, const char *name, uint64_t nid, struct cai_error *err)
{
	struct erofs_node n;
	char target[MAX_LINK];
	if (erofs_read_node(&u->image, nid, &n, err) < 0)
		return -1;
	if (S_ISDIR(n.mode))
		return make_directory(u, &n, name, err);
	if (S_ISCHR(n.mode) || S_ISBLK(n.mode))
		return 0;
	if (n.nlink > 1) {
		int r = link_to_first(u, &n, name, err);
		if (r)
			return r < 0 ? -1 : 0;
	}
	if (S_ISREG(n.mode)) {
		cleanup_close int fd = openat(u->dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return cai_fail_errno(err, errno, "cannot make %s", u->path);
		return copy_contents(u, &n, fd, err) < 0 ? -1 : dress(u, &n, name, fd, err);
	}
	if (S_ISLNK(n.mode)) {
		if (erofs_read_link(&u->image, &n, target, sizeof(target), err) < 0)
			return -1;
		if (symlinkat(target, u->dir, name) < 0)
			return cai_fail_errno(err, errno, "cannot make %s", u->path);
		return dress(u, &n, name, -1, err);
	}
	if (S_ISFIFO(n.mode) || S_ISSOCK(n.mode)) {
		if (mknodat(u->dir, name, (n.mode & S_IFMT) | (n.mode & 07777), 0) < 0)
			return cai_fail_errno(err, errno, "cannot make %s", u->path);
		return dress(u, &n, name, -1, err);
	}
	return cai_fail(err, EINVAL, "the EROFS image is broken: %s is of no known kind", u->path);
}

static int visit(const char *name, uint64_t nid, void *arg, struct cai_error *err)
{
	struct unpack *u = arg;
	size_t length = strlen(u->path);
	if (++u->entries > MAX_ENTRIES)
		return cai_fail(err, EFBIG, "the image has too many files");
	if (length + strlen(name) + 2 > sizeof(u->path))
		return cai_fail(err, ENAMETOOLONG, "a name in the image is too long");
	snprintf(u->path + length, sizeof(u->path) - length, "%s%s", length ? "/" : "", name);
	int r = make_entry(u, name, nid, err);
	u->path[length] = 0;
	return r;
}

/* Only what is below the one directory, and reading the image's descriptor. */
static int confine(int dir, struct cai_error *err)
{
	static const uint64_t caps = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID);
	struct landlock_ruleset_attr a = {.handled_access_fs = (LANDLOCK_ACCESS_FS_REFER << 1) - 1};
	struct landlock_path_beneath_attr rule = {.allowed_access = a.handled_access_fs, .parent_fd = dir};
	if (confine_capabilities(caps, err) < 0)
		return -1;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2) {
		cleanup_close int ruleset = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
		if (ruleset < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 ||
		    syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
			return cai_fail_errno(err, errno, "cannot enter a Landlock ruleset");
	}
	return confine_seccomp(caps, err);
}

static int unpack_in_child(int image_fd, int dir, struct cai_error *err)
{
	struct erofs_node root;
	struct unpack *u = calloc(1, sizeof(*u));
	struct stat st;
	if (!u || !(u->seen = calloc(LINK_SLOTS, sizeof(*u->seen))))
		return cai_fail(err, ENOMEM, "out of memory");
	umask(0);
	/* Whether more than one id is mapped: the second one then is somebody. */
	char map[64] = "";
	unsigned first, outer, count = 0;
	cleanup_close int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && file_read_full(fd, map, sizeof(map) - 1) > 0)
		sscanf(map, "%u %u %u", &first, &outer, &count);
	u->owners = count > 1 || strchr(map, '\n') != strrchr(map, '\n');
	if (confine(dir, err) < 0 || fstat(image_fd, &st) < 0)
		return -1;
	u->top = u->dir = dir;
	/* Chunks may be shared; four times over is more than any honest image does. */
	u->bytes_left = 4 * (uint64_t)st.st_size + GIB(1);
	if (erofs_read_open(&u->image, image_fd, err) < 0 || erofs_read_node(&u->image, u->image.root, &root, err) < 0)
		return -1;
	if (!S_ISDIR(root.mode))
		return cai_fail(err, EINVAL, "the EROFS image is broken: its root is no directory");
	return erofs_read_dir(&u->image, &root, visit, u, err) < 0 ? -1 : dress(u, &root, ".", dir, err);
}

/* Removes what is below a directory; links are not followed. What lies too deep for the descriptors that we may hold is brought to the top first,
 * where another pass finds it: a container can nest directories without end. */
static int empty(int top, int dir, unsigned depth, unsigned *moved, struct cai_error *err)
{
	fchmod(dir, 0700);
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return cai_fail_errno(err, errno, "cannot read a directory that is to be removed");
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dir, e->d_name, 0) == 0 || errno == ENOENT || unlinkat(dir, e->d_name, AT_REMOVEDIR) == 0)
			continue;
		if (depth == REMOVE_DEPTH) {
			char name[64];
			snprintf(name, sizeof(name), ".caisson-removed.%d.%u", (int)getpid(), (*moved)++);
			/* Moving a directory writes to it. */
			fchmodat(dir, e->d_name, 0700, 0);
			if (renameat(dir, e->d_name, top, name) < 0)
				return cai_fail_errno(err, errno, "cannot remove %s", e->d_name);
			continue;
		}
		cleanup_close int sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 && errno == EACCES && fchmodat(dir, e->d_name, 0700, 0) == 0)
			sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0)
			return cai_fail_errno(err, errno, "cannot remove %s", e->d_name);
		if (empty(top, sub, depth + 1, moved, err) < 0)
			return -1;
		if (unlinkat(dir, e->d_name, AT_REMOVEDIR) < 0)
			return cai_fail_errno(err, errno, "cannot remove %s", e->d_name);
	}
	return 0;
}

static int empty_all(int dir, struct cai_error *err)
{
	unsigned before, moved = 0;
	do {
		before = moved;
		if (empty(dir, dir, 0, &moved, err) < 0)
			return -1;
	} while (moved != before);
	return 0;
}

/* Runs one of the two in a child with the ids of this user's containers. Root needs no namespace, but the same confinement. */
static int in_child(int image_fd, int dir, struct cai_error *err)
{
	int pipes[2], go[2];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int in = pipes[0], out = pipes[1];
	if (pipe2(go, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int go_read = go[0], go_write = go[1];
	bool root = geteuid() == 0;
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | (root ? 0 : CLONE_NEWUSER), NULL, NULL, NULL, NULL);
	if (pid == 0) {
		struct cai_error e = {.text = ""};
		char byte;
		close(go_write);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (read(go_read, &byte, 1) != 1)
			_exit(1);
		if (!root && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
			_exit(1);
		int r = image_fd >= 0 ? unpack_in_child(image_fd, dir, &e) : empty_all(dir, &e);
		if (r < 0)
			file_write_full(out, &e, sizeof(e));
		_exit(r < 0 ? 1 : 0);
	}
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot start a process in a user namespace");
	close(out);
	out = -1;
	char note[200];
	struct cai_error e = {.text = ""};
	int status = -1, r = root ? 0 : userns_map_rootless(pid, note, sizeof(note), err);
	if (r == 0 && write(go_write, "", 1) != 1)
		r = cai_fail_errno(err, errno, "cannot start unpacking");
	close(go_write);
	go_write = -1;
	ssize_t n = file_read_full(in, &e, sizeof(e));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return -1;
	if (n == (ssize_t)sizeof(e)) {
		e.text[sizeof(e.text) - 1] = 0;
		if (err)
			*err = e;
		return -1;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : cai_fail(err, 0, "the process that handles an image's files died");
}

int container_remove_tree(const char *dir, struct cai_error *err)
{
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot open %s", dir);
	if (in_child(-1, fd, err) < 0)
		return -1;
	return rmdir(dir) == 0 || errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot remove %s", dir);
}

int container_unpack(int image_fd, const char *dir, struct cai_error *err)
{
	cleanup_free char *tmp = NULL;
	if (access(dir, F_OK) == 0)
		return 0;
	if (asprintf(&tmp, "%s.tmp.%d", dir, (int)getpid()) < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	if (mkdir(tmp, 0700) < 0)
		return cai_fail_errno(err, errno, "cannot make %s", tmp);
	cleanup_close int fd = open(tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? cai_fail_errno(err, errno, "cannot open %s", tmp) : in_child(image_fd, fd, err);
	/* Another process may have been faster: then its tree stands and ours goes. */
	if (r == 0 && rename(tmp, dir) < 0 && errno != EEXIST && errno != ENOTEMPTY)
		r = cai_fail_errno(err, errno, "cannot put %s in its place", dir);
	if (access(tmp, F_OK) == 0)
		container_remove_tree(tmp, NULL);
	return r;
}
