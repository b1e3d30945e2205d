/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the kernel's lock is the only witness of life. A runner holds flock(2) on its
 * sandbox's lock file for as long as it lives, however it dies. Making and healing happen under one registry
 * lock, so a directory seen without a held lock can only be a dead one. A runner that ends well removes its
 * directory before it lets go of the lock.
 */
#include "sandbox/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include "sandbox/paths.h"

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

int registry_open(struct registry *r, struct cai_error *err)
{
	r->root = NULL;
	r->root_fd = paths_runtime(&r->root, err);
	if (r->root_fd < 0)
		return -1;
	if (mkdirat(r->root_fd, "sandboxes", 0700) < 0 && errno != EEXIST) {
		cai_fail_errno(err, errno, "cannot make %s/sandboxes", r->root);
		registry_close(r);
		return -1;
	}
	return 0;
}

void registry_close(struct registry *r)
{
	if (r->root_fd >= 0)
		close(r->root_fd);
	r->root_fd = -1;
	free(r->root);
	r->root = NULL;
}

static int lock_registry(struct registry *r, struct cai_error *err)
{
	cleanup_close int fd = openat(r->root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/lock", r->root);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return cai_fail_errno(err, errno, "cannot lock %s/lock", r->root);
	return steal_fd(&fd);
}

/* A sandbox's directory holds only files, never directories. */
static void remove_flat(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	cleanup_closedir DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return;
	}
	for (struct dirent *e; (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(fd, e->d_name, 0);
	unlinkat(parent, name, AT_REMOVEDIR);
}

/* Whether the runner of sandboxes/NAME lives. Call with the registry locked. */
static bool runner_lives(int parent, const char *name)
{
	char path[SANDBOX_NAME_MAX + 8];
	snprintf(path, sizeof(path), "%.63s/lock", name);
	cleanup_close int fd = openat(parent, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static int heal_locked(struct registry *r, struct cai_error *err)
{
	int fd = openat(r->root_fd, "sandboxes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/sandboxes", r->root);
	cleanup_closedir DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	int removed = 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (!sandbox_name_ok(e->d_name) || runner_lives(fd, e->d_name))
			continue;
		remove_flat(fd, e->d_name);
		removed++;
	}
	return removed;
}

int registry_heal(struct registry *r, struct cai_error *err)
{
	cleanup_close int lock = lock_registry(r, err);
	return lock < 0 ? -1 : heal_locked(r, err);
}

void sandbox_dir_init(struct sandbox_dir *d)
{
	*d = (struct sandbox_dir){.parent_fd = -1, .dir_fd = -1, .lock_fd = -1};
}

static int try_create(struct registry *r, struct sandbox_dir *d, struct cai_error *err)
{
	if (mkdirat(d->parent_fd, d->name, 0700) < 0) {
		if (errno == EEXIST)
			return cai_fail(err, EEXIST, "a sandbox named '%s' is already running", d->name);
		return cai_fail_errno(err, errno, "cannot make %s/sandboxes/%s", r->root, d->name);
	}
	d->dir_fd = openat(d->parent_fd, d->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->dir_fd >= 0)
		d->lock_fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (d->lock_fd >= 0 && flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0 &&
	    asprintf(&d->path, "%s/sandboxes/%s", r->root, d->name) >= 0)
		return 0;
	cai_fail_errno(err, errno, "cannot set up %s/sandboxes/%s", r->root, d->name);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->dir_fd >= 0)
		close(d->dir_fd);
	d->lock_fd = d->dir_fd = -1;
	remove_flat(d->parent_fd, d->name); /* the caller holds the registry lock */
	return -1;
}

int registry_create(struct registry *r, const char *name, struct sandbox_dir *d, struct cai_error *err)
{
	sandbox_dir_init(d);
	cleanup_close int lock = lock_registry(r, err);
	if (lock < 0 || heal_locked(r, err) < 0)
		return -1;
	d->parent_fd = openat(r->root_fd, "sandboxes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->parent_fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s/sandboxes", r->root);
	if (name && *name) {
		snprintf(d->name, sizeof(d->name), "%s", name);
		if (try_create(r, d, err) == 0)
			return 0;
		sandbox_dir_remove(d); /* closes; there is no directory of ours */
		return -1;
	}
	for (;;) {
		uint64_t v = 0;
		if (getrandom(&v, sizeof(v), 0) != sizeof(v))
			return cai_fail_errno(err, errno, "cannot read random bytes");
		snprintf(d->name, sizeof(d->name), "%012llx", (unsigned long long)(v & 0xffffffffffff));
		struct cai_error e = {0};
		if (try_create(r, d, &e) == 0)
			return 0;
		if (e.errnum != EEXIST) {
			if (err)
				*err = e;
			sandbox_dir_remove(d);
			return -1;
		}
	}
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
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0)
		return cai_fail_errno(err, errno, "cannot listen on %s/%s", d->path, file);
	return steal_fd(&fd);
}

int sandbox_dir_connect(struct sandbox_dir *d, const char *file, int type, struct cai_error *err)
{
	struct sockaddr_un a;
	if (socket_address(d, file, &a, err) < 0)
		return -1;
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return cai_fail_errno(err, errno, "cannot connect to %s/%s", d->path, file);
	return steal_fd(&fd);
}

int sandbox_dir_write(struct sandbox_dir *d, const char *file, const char *text, struct cai_error *err)
{
	cleanup_close int fd =
	    openat(d->dir_fd, ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || file_write_full(fd, text, strlen(text)) < 0 ||
	    renameat(d->dir_fd, ".new", d->dir_fd, file) < 0)
		return cai_fail_errno(err, errno, "cannot write %s/%s", d->path, file);
	return 0; /* no fsync: the record means nothing once its runner is gone */
}

void sandbox_dir_remove(struct sandbox_dir *d)
{
	if (d->dir_fd >= 0) {
		/* Under the registry lock, else a new sandbox of the same name could be made between our two
		 * steps. */
		cleanup_close int lock = openat(d->parent_fd, "../lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		while (lock >= 0 && flock(lock, LOCK_EX) < 0 && errno == EINTR)
			;
		static const char *const files[] = {"vsock.sock", "control.sock", "sandbox.json", "lock"};
		for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
			unlinkat(d->dir_fd, files[i], 0);
		close(d->dir_fd);
		if (unlinkat(d->parent_fd, d->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
			remove_flat(d->parent_fd, d->name);
	}
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->parent_fd >= 0)
		close(d->parent_fd);
	free(d->path);
	sandbox_dir_init(d);
}
