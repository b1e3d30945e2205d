/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one lock a sandbox, an flock that dies with its holder, is all the synchronisation there is. A name is
 * reserved by the one system call that makes a symbolic link, and whoever finds a link to a sandbox that is gone takes it over under the
 * store's lock. Removing renames nothing: config.json goes first, so that a removal killed half-way leaves a directory without
 * one, which the next command finishes.
 */
#include "sandbox/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "container/container.h"
#include "sandbox/paths.h"

#define MAX_RECORD (4u << 20)
#define MAX_DEPTH  64 /* of directories below a sandbox's own that removal follows */

bool sandbox_name_ok(const char *name)
{
	size_t n = strlen(name);
	if (n == 0 || n > SANDBOX_NAME_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = name[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!alnum && (i == 0 || !strchr("._-", c)))
			return false;
	}
	return true;
}

static bool id_ok(const char *id)
{
	return strlen(id) == SANDBOX_ID_LEN && strspn(id, "0123456789abcdef") == SANDBOX_ID_LEN;
}

int store_open(struct store *s, struct cai_error *err)
{
	*s = (struct store){.root_fd = -1, .dir_fd = -1};
	s->root_fd = paths_root(&s->root, err);
	if (s->root_fd < 0)
		return -1;
	s->dir_fd = openat(s->root_fd, "sandboxes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->dir_fd < 0 && errno == ENOENT) {
		/* In this order: who sees sandboxes/ counts on names/. */
		if ((mkdirat(s->root_fd, "names", 0700) < 0 && errno != EEXIST) ||
		    (mkdirat(s->root_fd, "sandboxes", 0700) < 0 && errno != EEXIST)) {
			cai_fail_errno(err, errno, "cannot make directories in %s", s->root);
			store_close(s);
			return -1;
		}
		s->dir_fd = openat(s->root_fd, "sandboxes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (s->dir_fd < 0) {
		cai_fail_errno(err, errno, "cannot open %s/sandboxes", s->root);
		store_close(s);
		return -1;
	}
	return 0;
}

void store_close(struct store *s)
{
	if (s->root_fd >= 0)
		close(s->root_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	s->root_fd = s->dir_fd = -1;
	free(s->root);
	s->root = NULL;
}

int store_lock(struct store *s, struct cai_error *err)
{
	cleanup_close int fd = openat(s->root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/lock", s->root);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return cai_fail_errno(err, errno, "cannot lock %s/lock", s->root);
	return steal_fd(&fd);
}

/* Removes a tree without following links or going into other file systems. What cannot be removed stays. */
static void remove_tree(int parent, const char *name, dev_t dev, unsigned depth)
{
	if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
		return;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0) /* overlayfs makes work/work with mode 0 */
		fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	struct stat st;
	cleanup_closedir DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return;
	}
	if (fstat(fd, &st) == 0 && (!dev || st.st_dev == dev) && depth < MAX_DEPTH * 8)
		for (struct dirent *e; (e = readdir(d));)
			if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
				remove_tree(fd, e->d_name, st.st_dev, depth + 1);
	unlinkat(parent, name, AT_REMOVEDIR);
}

void sandbox_dir_init(struct sandbox_dir *d)
{
	*d = (struct sandbox_dir){.store_fd = -1, .dir_fd = -1, .lock_fd = -1};
}

void sandbox_dir_close(struct sandbox_dir *d)
{
	int *fds[] = {&d->lock_fd, &d->dir_fd, &d->store_fd};
	for (unsigned i = 0; i < 3; i++)
		if (*fds[i] >= 0)
			close(*fds[i]);
	free(d->path);
	sandbox_dir_init(d);
}

/* Opens sandboxes/ID. ENOENT when it is not there. */
static int open_dir(struct store *s, const char *id, struct sandbox_dir *d, struct cai_error *err)
{
	sandbox_dir_init(d);
	snprintf(d->id, sizeof(d->id), "%s", id);
	d->dir_fd = openat(s->dir_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->dir_fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/sandboxes/%s", s->root, id);
	d->store_fd = fcntl(s->dir_fd, F_DUPFD_CLOEXEC, 3);
	if (d->store_fd < 0 || asprintf(&d->path, "%s/sandboxes/%s", s->root, id) < 0) {
		int e = errno;
		sandbox_dir_close(d);
		return cai_fail_errno(err, e, "cannot open %s/sandboxes/%s", s->root, id);
	}
	return 0;
}

/* Reserves names/NAME for id. 1, 0 when a sandbox that exists has it (its id in owner), -1. */
static int take_name(struct store *s, const char *name, const char *id, char owner[SANDBOX_ID_LEN + 1], struct cai_error *err)
{
	char path[SANDBOX_NAME_MAX + 16];
	snprintf(path, sizeof(path), "names/%s", name);
	for (unsigned i = 0; i < 8; i++) {
		if (symlinkat(id, s->root_fd, path) == 0)
			return 1;
		if (errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make %s/%s", s->root, path);
		cleanup_close int lock = store_lock(s, err);
		if (lock < 0)
			return -1;
		char target[64];
		ssize_t n = readlinkat(s->root_fd, path, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		if (id_ok(target) && (faccessat(s->dir_fd, target, F_OK, 0) == 0 || errno != ENOENT)) {
			memcpy(owner, target, SANDBOX_ID_LEN + 1);
			return 0;
		}
		unlinkat(s->root_fd, path, 0); /* of a sandbox that is gone */
	}
	return cai_fail(err, EAGAIN, "the name '%s' is being fought over; try again", name);
}

int store_create(struct store *s, const char *name, struct sandbox_dir *d, struct cai_error *err)
{
	char id[SANDBOX_ID_LEN + 1], owner[SANDBOX_ID_LEN + 1];
	cleanup_close int making = store_lock(s, err); /* who heals waits until the directory is locked */
	if (making < 0)
		return -1;
	for (;;) {
		uint64_t v = 0;
		if (getrandom(&v, sizeof(v), 0) != sizeof(v))
			return cai_fail_errno(err, errno, "cannot read random bytes");
		snprintf(id, sizeof(id), "%012llx", (unsigned long long)(v & 0xffffffffffff));
		if (mkdirat(s->dir_fd, id, 0700) == 0)
			break;
		if (errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make %s/sandboxes/%s", s->root, id);
	}
	if (open_dir(s, id, d, err) < 0) {
		unlinkat(s->dir_fd, id, AT_REMOVEDIR);
		return -1;
	}
	int r = sandbox_dir_lock(d, err);
	close(steal_fd(&making));
	if (r == 0)
		r = cai_fail(err, EAGAIN, "another process holds the new sandbox's lock");
	if (r > 0 && name && *name) {
		r = take_name(s, name, id, owner, err);
		if (r == 0)
			r = cai_fail(err, EEXIST, "a sandbox named '%s' exists already (%s); remove it with 'caisson rm %s', or choose another name",
				     name, owner, name);
	}
	if (r > 0)
		return 0;
	sandbox_dir_remove(d, NULL);
	return -1;
}

int store_find(struct store *s, const char *what, struct sandbox_dir *d, struct cai_error *err)
{
	char path[SANDBOX_NAME_MAX + 16], target[64], found[SANDBOX_ID_LEN + 1] = "";
	sandbox_dir_init(d);
	if (sandbox_name_ok(what)) {
		snprintf(path, sizeof(path), "names/%s", what);
		ssize_t n = readlinkat(s->root_fd, path, target, sizeof(target) - 1);
		if (n > 0) {
			target[n] = 0;
			if (id_ok(target) && open_dir(s, target, d, NULL) == 0)
				return 0;
		}
		if (id_ok(what) && open_dir(s, what, d, NULL) == 0)
			return 0;
	}
	size_t len = strlen(what);
	if (len >= 1 && len < SANDBOX_ID_LEN && strspn(what, "0123456789abcdef") == len) {
		int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
		for (struct dirent *e; dir && (e = readdir(dir));) {
			if (!id_ok(e->d_name) || strncmp(e->d_name, what, len))
				continue;
			if (found[0])
				return cai_fail(err, EINVAL, "'%s' fits more than one sandbox; write more of the id", what);
			memcpy(found, e->d_name, SANDBOX_ID_LEN + 1);
		}
		if (found[0] && open_dir(s, found, d, NULL) == 0)
			return 0;
	}
	return cai_fail(err, ENOENT, "there is no sandbox '%.80s'; 'caisson ps -a' lists them", what);
}

int store_each(struct store *s, int (*fn)(void *ctx, struct sandbox_dir *d), void *ctx, struct cai_error *err)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return cai_fail_errno(err, errno, "cannot open %s/sandboxes", s->root);
	}
	for (struct dirent *e; (e = readdir(dir));) {
		struct sandbox_dir d;
		if (!id_ok(e->d_name) || open_dir(s, e->d_name, &d, NULL) < 0)
			continue;
		int r = fn(ctx, &d);
		sandbox_dir_close(&d);
		if (r)
			return r;
	}
	return 0;
}

int store_rename(struct store *s, const struct sandbox_dir *d, const char *old, const char *name, struct cai_error *err)
{
	char owner[SANDBOX_ID_LEN + 1], path[SANDBOX_NAME_MAX + 16];
	if (!sandbox_name_ok(name))
		return cai_fail(err, EINVAL, "'%s' is no sandbox name", name);
	int r = take_name(s, name, d->id, owner, err);
	if (r == 0)
		return cai_fail(err, EEXIST, "a sandbox named '%s' exists already (%s)", name, owner);
	if (r > 0 && old && sandbox_name_ok(old)) {
		snprintf(path, sizeof(path), "names/%s", old);
		unlinkat(s->root_fd, path, 0);
	}
	return r < 0 ? -1 : 0;
}

int sandbox_dir_lock(struct sandbox_dir *d, struct cai_error *err)
{
	cleanup_close int fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/lock", d->path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : cai_fail_errno(err, errno, "cannot lock %s/lock", d->path);
	struct stat st;
	if (fstat(fd, &st) == 0 && st.st_nlink == 0) /* removed between our open and our lock */
		return cai_fail(err, ENOENT, "the sandbox %s has just been removed", d->id);
	d->lock_fd = steal_fd(&fd);
	return 1;
}

int sandbox_dir_lock_wait(struct sandbox_dir *d, unsigned ms, struct cai_error *err)
{
	for (unsigned t = 0;; t += 5) {
		int r = sandbox_dir_lock(d, err);
		if (r != 0 || t >= ms)
			return r;
		poll(NULL, 0, 5);
	}
}

bool sandbox_dir_held(const struct sandbox_dir *d)
{
	cleanup_close int fd = openat(d->dir_fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* A Unix socket's path is at most 107 bytes; a longer one is reached through the directory's descriptor. */
static int socket_address(struct sandbox_dir *d, const char *file, struct sockaddr_un *a,
			  struct cai_error *err)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	int n = snprintf(a->sun_path, sizeof(a->sun_path), "%s/%s", d->path, file);
	if (n >= (int)sizeof(a->sun_path))
		n = snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%s", d->dir_fd, file);
	return n < (int)sizeof(a->sun_path)
		   ? 0
		   : cai_fail(err, ENAMETOOLONG, "socket name '%s' is too long", file);
}

int sandbox_dir_listen(struct sandbox_dir *d, const char *file, int type, struct cai_error *err)
{
	struct sockaddr_un a;
	if (socket_address(d, file, &a, err) < 0)
		return -1;
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		unlinkat(d->dir_fd, file, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return cai_fail_errno(err, errno, "cannot listen on %s/%s", d->path, file);
	return steal_fd(&fd);
}

int sandbox_dir_connect(struct sandbox_dir *d, const char *file, int type, struct cai_error *err)
{
	struct sockaddr_un a;
	if (socket_address(d, file, &a, err) < 0)
		return -1;
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot make a socket");
	/* A full backlog says EAGAIN on Unix sockets at once; the other side takes only moments. */
	for (unsigned i = 0; connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0; i++) {
		if ((errno != EAGAIN && errno != EINTR) || i == 1000)
			return cai_fail_errno(err, errno, "cannot connect to %s/%s", d->path, file);
		poll(NULL, 0, 5);
	}
	return steal_fd(&fd);
}

int sandbox_dir_write(struct sandbox_dir *d, const char *file, json_t *o, bool durable, struct cai_error *err)
{
	cleanup_free char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	if (!text)
		return cai_fail(err, ENOMEM, "out of memory");
	char tmp[64];
	snprintf(tmp, sizeof(tmp), ".new-%d", (int)getpid());
	cleanup_close int fd =
	    openat(d->dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || file_write_full(fd, text, strlen(text)) < 0 || (durable && fdatasync(fd) < 0) ||
	    renameat(d->dir_fd, tmp, d->dir_fd, file) < 0) {
		int e = errno;
		unlinkat(d->dir_fd, tmp, 0);
		return cai_fail_errno(err, e, "cannot write %s/%s", d->path, file);
	}
	if (durable)
		fsync(d->dir_fd);
	return 0;
}

json_t *sandbox_dir_read(const struct sandbox_dir *d, const char *file, struct cai_error *err)
{
	cleanup_close int fd = openat(d->dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0) {
		cai_fail_errno(err, errno, "cannot read %s/%s", d->path, file);
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_RECORD) {
		cai_fail(err, EINVAL, "%s/%s is no record of Caisson's", d->path, file);
		return NULL;
	}
	cleanup_free char *text = malloc((size_t)st.st_size + 1);
	ssize_t n = text ? file_read_full(fd, text, (size_t)st.st_size) : -1;
	json_error_t je;
	json_t *o = n < 0 ? NULL : json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(o)) {
		json_decref(o);
		cai_fail(err, EINVAL, "%s/%s is damaged; remove the sandbox with 'caisson rm -f %s'", d->path, file, d->id);
		return NULL;
	}
	return o;
}

void sandbox_dir_remove(struct sandbox_dir *d, const char *name)
{
	if (d->dir_fd >= 0) {
		unlinkat(d->dir_fd, "config.json", 0);
		char path[SANDBOX_NAME_MAX + 16], target[64];
		ssize_t n = -1;
		if (name && sandbox_name_ok(name)) {
			snprintf(path, sizeof(path), "../names/%s", name);
			n = readlinkat(d->store_fd, path, target, sizeof(target));
		}
		if (n == SANDBOX_ID_LEN && !memcmp(target, d->id, SANDBOX_ID_LEN))
			unlinkat(d->store_fd, path, 0);
		static const char *const files[] = {"state.json", "agent.sock", "runner.sock", "log", "upper.ext4"};
		for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
			unlinkat(d->dir_fd, files[i], 0);
		if (geteuid() != 0 && faccessat(d->dir_fd, "upper", F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
			cleanup_free char *upper = path_join(d->path, "upper"); /* files in it belong to ids of the user's range */
			if (upper)
				container_remove_tree(upper, NULL);
		}
		int fd = openat(d->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
		for (struct dirent *e; dir && (e = readdir(dir));)
			if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lock"))
				remove_tree(dirfd(dir), e->d_name, 0, 0);
		if (faccessat(d->dir_fd, "upper", F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
			cleanup_free char *upper = path_join(d->path, "upper"); /* nested more deeply than descriptors reach */
			if (upper)
				container_remove_tree(upper, NULL);
		}
		unlinkat(d->dir_fd, "lock", 0); /* last: who waits for it sees that it is gone */
		unlinkat(d->store_fd, d->id, AT_REMOVEDIR);
	}
	sandbox_dir_close(d);
}

void store_release_names(struct store *s, const char *id)
{
	int fd = openat(s->root_fd, "names", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		char target[64];
		ssize_t n = readlinkat(fd, e->d_name, target, sizeof(target));
		if (n == SANDBOX_ID_LEN && !memcmp(target, id, SANDBOX_ID_LEN))
			unlinkat(fd, e->d_name, 0);
	}
}

void store_prune_unpacked(struct store *s)
{
	int fd = openat(s->root_fd, "unpacked", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		char image[300];
		cleanup_free char *path = NULL;
		snprintf(image, sizeof(image), "images/%.200s.erofs", e->d_name);
		if (e->d_name[0] != '.' && faccessat(s->root_fd, image, F_OK, 0) < 0 && errno == ENOENT &&
		    asprintf(&path, "%s/unpacked/%s", s->root, e->d_name) > 0)
			container_remove_tree(path, NULL);
	}
}
