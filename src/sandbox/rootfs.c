/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: caisson-image makes an image of a directory in a fraction of a second, a scan of its
 * metadata takes milliseconds. So an image is kept in the cache under the tree's fingerprint: an unchanged
 * tree finds its image, a changed one has another name and is made anew. The boot id is part of the name: a
 * file that a crash of the host left half on disk is then never found again, which saves an fsync for every
 * image.
 *
 * One lock serialises making and pruning; finding takes none, since an image appears by rename, complete, and
 * removing one that is open elsewhere harms nobody. The tree is scanned again after the image is made: if it
 * changed meanwhile, the image is made again.
 */
#include "sandbox/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "sandbox/fingerprint.h"
#include "sandbox/paths.h"

extern char **environ;

#define CACHE_MAX_IMAGES  16
#define CACHE_MAX_BYTES	  GIB(8)
#define CTIME_GRAIN_NS	  20000000 /* two ticks of the slowest kernel clock (HZ=100) */
#define EROFS_MAGIC	  0xe0f5e1e2u
#define EXT4_MAGIC	  0xef53u
#define EXT4_NEEDS_REPLAY 0x4u /* s_feature_incompat: the journal holds transactions */

static int identify(int fd, const char *path, const char **fstype, struct cai_error *err)
{
	uint8_t sb[128];
	if (file_pread_full(fd, sb, sizeof(sb), 1024) == (ssize_t)sizeof(sb)) {
		if (load_le32(sb) == EROFS_MAGIC) {
			*fstype = "erofs";
			return 0;
		}
		if (load_le16(sb + 56) == EXT4_MAGIC) {
			if (load_le32(sb + 96) & EXT4_NEEDS_REPLAY)
				return cai_fail(err, EBUSY,
						"%s is an ext4 file system in use or not cleanly unmounted; "
						"unmount it, or run 'e2fsck -f %s'",
						path, path);
			*fstype = "ext4";
			return 0;
		}
	}
	return cai_fail(err, EINVAL, "%s holds no file system that Caisson knows (EROFS or ext4)", path);
}

static int open_file(const char *path, struct rootfs *out, struct cai_error *err)
{
	cleanup_close int fd =
	    open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not blocking: a FIFO must not hang us */
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open the root file system %s", path);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot look at %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return cai_fail(err, EINVAL, "%s is neither a directory nor a file with a file system", path);
	if (identify(fd, path, &out->fstype, err) < 0)
		return -1;
	out->fd = steal_fd(&fd);
	return 0;
}

/* caisson-image reads the tree in a process that can do nothing else, and writes the file. */
static int run_writer(const char *image, const char *tree, struct cai_error *err)
{
	int p[2];
	cleanup_free char *prog = paths_libexec("caisson-image", err);
	if (!prog)
		return -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int rd = p[0], wr = p[1];
	const char *argv[] = {"caisson-image", "--quiet", "rootfs", "--", tree, image, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&fa, 0, 1);
	posix_spawn_file_actions_adddup2(&fa, wr, 2);
	pid_t pid;
	int e = posix_spawn(&pid, prog, &fa, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(steal_fd(&wr));
	if (e)
		return cai_fail_errno(err, e, "cannot run %s", prog);
	char text[400];
	ssize_t n = file_read_full(rd, text, sizeof(text) - 1);
	int status = 0;
	close(steal_fd(&rd)); /* what is beyond is not waited for */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	text[n < 0 ? 0 : n] = 0;
	text[strcspn(text, "\n")] = 0;
	const char *why = strncmp(text, "caisson-image: ", 15) ? text : text + 15;
	return cai_fail(err, EIO, "%s", why[0] ? why : "caisson-image could not make an image of the directory and gave no reason");
}

struct cached {
	char name[64];
	off_t size;
	struct timespec used;
};

static int oldest_first(const void *a, const void *b)
{
	const struct timespec *x = &((const struct cached *)a)->used, *y = &((const struct cached *)b)->used;
	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* Removes unfinished files and, to make room for one more, the images unused for longest. Call with the cache
 * locked. */
static void prune(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct cached *l = NULL;
	size_t n = 0;
	uint64_t total = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		size_t len = strlen(e->d_name);
		if (!strncmp(e->d_name, ".tmp", 4)) {
			unlinkat(dir, e->d_name, 0);
			continue;
		}
		struct stat st;
		if (len < 6 || len >= sizeof(l->name) || strcmp(e->d_name + len - 6, ".erofs") ||
		    fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		struct cached *m = realloc(l, (n + 1) * sizeof(*l));
		if (!m)
			break;
		l = m;
		strcpy(l[n].name, e->d_name);
		l[n].size = st.st_size;
		l[n++].used = st.st_atim;
		total += (uint64_t)st.st_size;
	}
	if (n)
		qsort(l, n, sizeof(*l), oldest_first);
	size_t left = n;
	for (size_t i = 0; i < n && (left >= CACHE_MAX_IMAGES || total > CACHE_MAX_BYTES); i++) {
		unlinkat(dir, l[i].name, 0);
		total -= (uint64_t)l[i].size;
		left--;
	}
	free(l);
}

/* Scans the tree, waiting out changes so recent that another within the same tick of the clock would not
 * show. */
static int scan(const char *tree, struct fingerprint *f, struct cai_error *err)
{
	for (unsigned i = 0; i < 10; i++) {
		int64_t start = (int64_t)clock_real_ns();
		if (fingerprint_tree(tree, f, err) < 0)
			return -1;
		if (f->newest_ns < start - CTIME_GRAIN_NS || f->newest_ns > start + 10000000000)
			return 0; /* a time far in the future is a clock that was set back, not a recent
				     change */
		poll(NULL, 0, CTIME_GRAIN_NS / 1000000);
	}
	return 0;
}

static void image_name(const char *tree, const struct fingerprint *f, char out[64])
{
	struct siphash h;
	uint64_t v[2];
	char boot[40];
	host_boot_id(boot);
	siphash_init(&h);
	siphash_add(&h, f->hash, sizeof(f->hash));
	siphash_add(&h, tree, strlen(tree));
	siphash_add(&h, boot, strlen(boot));
	siphash_end(&h, v);
	snprintf(out, 64, "%016llx%016llx.erofs", (unsigned long long)v[0], (unsigned long long)v[1]);
}

static int open_cached(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) /* relatime would not move the time of use that pruning goes by */
		futimens(fd, (const struct timespec[2]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}});
	return fd;
}

static int make_image(int dir, const char *cache, const char *tree, int *image, struct cai_error *err)
{
	cleanup_close int lock = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return cai_fail_errno(err, errno, "cannot lock %s/lock", cache);
	struct fingerprint f, after;
	char name[64], tmp_name[64];
	for (unsigned attempt = 0;; attempt++) {
		if (scan(tree, &f, err) < 0)
			return -1;
		/* Files of an ordinary user's own tree belong to root inside, as in a container of that user. */
		image_name(tree, &f, name);
		if ((*image = open_cached(dir, name)) >= 0)
			return 0; /* another run made it while we waited for the lock */
		prune(dir);
		snprintf(tmp_name, sizeof(tmp_name), ".tmp-%d.erofs", (int)getpid());
		cleanup_free char *tmp = path_join(cache, tmp_name);
		if (!tmp)
			return cai_fail(err, ENOMEM, "out of memory");
		uint64_t t0 = clock_mono_ns();
		if (run_writer(tmp, tree, err) < 0) {
			unlinkat(dir, tmp_name, 0);
			return -1;
		}
		log_debug("made an image of %s (%llu files, %llu MiB) in %llu ms", tree,
			  (unsigned long long)f.entries, (unsigned long long)(f.bytes >> 20),
			  (unsigned long long)((clock_mono_ns() - t0) / 1000000));
		bool same =
		    fingerprint_tree(tree, &after, NULL) == 0 && !memcmp(after.hash, f.hash, sizeof(f.hash));
		if (same && renameat(dir, tmp_name, dir, name) < 0) {
			cai_fail_errno(err, errno, "cannot name %s/%s", cache, name);
			unlinkat(dir, tmp_name, 0);
			return -1;
		}
		if (same || attempt == 2) {
			*image = openat(dir, same ? name : tmp_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
			int e = errno;
			unlinkat(dir, tmp_name, 0);
			if (*image < 0)
				return cai_fail_errno(err, e, "cannot open %s/%s", cache, name);
			if (!same)
				log_warn("%s changes while it is read; this run sees one state of it that "
					 "may be mixed",
					 tree);
			return 0;
		}
		unlinkat(dir, tmp_name, 0);
	}
}

static int open_directory(const char *path, struct rootfs *out, struct cai_error *err)
{
	cleanup_free char *tree = realpath(path, NULL);
	if (!tree)
		return cai_fail_errno(err, errno, "cannot open the root file system %s", path);
	if (!strcmp(tree, "/"))
		return cai_fail(
		    err, EINVAL,
		    "--rootfs / is this host itself; pass a directory that holds a root file system");
	cleanup_free char *top = paths_cache(err);
	cleanup_free char *cache = top ? path_join(top, "rootfs") : NULL;
	if (!cache)
		return -1;
	if (mkdir(cache, 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make %s", cache);
	cleanup_close int dir = open(cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return cai_fail_errno(err, errno, "cannot open %s", cache);
	struct fingerprint f;
	char name[64];
	if (scan(tree, &f, err) < 0)
		return -1;
	if (f.entries <= 1)
		return cai_fail(err, ENOENT, "the directory %s is empty", path);
	image_name(tree, &f, name);
	cleanup_close int fd = open_cached(dir, name);
	if (fd < 0 && make_image(dir, cache, tree, &fd, err) < 0)
		return -1;
	if (identify(fd, name, &out->fstype, err) < 0) {
		unlinkat(dir, name, 0); /* damaged: the next run makes it anew */
		return -1;
	}
	out->fd = steal_fd(&fd);
	return 0;
}

int rootfs_open(const char *path, struct rootfs *out, struct cai_error *err)
{
	*out = (struct rootfs){.fd = -1};
	if (!path) {
		cleanup_free char *own = paths_asset(ASSET_BUSYBOX, err);
		return own ? open_file(own, out, err) : -1;
	}
	struct stat st;
	if (stat(path, &st) < 0)
		return cai_fail_errno(err, errno, "cannot open the root file system %s", path);
	return S_ISDIR(st.st_mode) ? open_directory(path, out, err) : open_file(path, out, err);
}

void rootfs_close(struct rootfs *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}
