/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sandbox/paths.h"

#define BASE_VERSION 1 /* part of a base disk's name: changes with the options below */

static int run_mkfs(const char *file, struct cai_error *err)
{
	/* Nothing is left to be done later by the guest (lazy tables are marked as zeroed: the file is sparse), a small journal, no
	 * blocks kept for root, metadata close together so that a clone copies little. */
	char *argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-i", "32768", "-J", "size=16", "-O",
			"^resize_inode,sparse_super2,metadata_csum,^orphan_file", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,num_backup_sb=0,packed_meta_blocks=1", "-L", "upper",
			(char *)(uintptr_t)file, NULL};
	char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "MKE2FS_CONFIG=/dev/null", NULL};
	static const char *const dirs[] = {"/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"};
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&fa, 0, 1);
	posix_spawn_file_actions_adddup2(&fa, 0, 2);
	pid_t pid = -1;
	int e = ENOENT;
	for (size_t i = 0; i < ARRAY_LEN(dirs) && e == ENOENT; i++) {
		char prog[64];
		snprintf(prog, sizeof(prog), "%s/mke2fs", dirs[i]);
		e = posix_spawn(&pid, prog, &fa, NULL, argv, env);
	}
	posix_spawn_file_actions_destroy(&fa);
	if (e == ENOENT)
		return cai_fail(err, ENOENT, "a writable disk needs mke2fs; install it with 'apt install e2fsprogs', or use --ephemeral");
	if (e)
		return cai_fail_errno(err, e, "cannot run mke2fs");
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0
		       ? 0
		       : cai_fail(err, EIO, "mke2fs could not make the writable disk (status %d); is the disk full?", status);
}

/* ROOT/disks/SIZE-VERSION.ext4, formatted when it is not there. */
static int open_base(struct store *s, uint64_t bytes, struct cai_error *err)
{
	char name[64], tmp[64];
	if (mkdirat(s->root_fd, "disks", 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make %s/disks", s->root);
	snprintf(name, sizeof(name), "disks/%llu-%d.ext4", (unsigned long long)bytes, BASE_VERSION);
	int fd = openat(s->root_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 || errno != ENOENT)
		return fd >= 0 ? fd : cai_fail_errno(err, errno, "cannot open %s/%s", s->root, name);
	cleanup_close int lock = openat(s->root_fd, "disks/lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return cai_fail_errno(err, errno, "cannot lock %s/disks", s->root);
	fd = openat(s->root_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		return fd;
	snprintf(tmp, sizeof(tmp), "disks/.new"); /* one at a time, under the lock: a left one is written over */
	cleanup_close int out = openat(s->root_fd, tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	cleanup_free char *path = path_join(s->root, tmp);
	if (out < 0 || !path || ftruncate(out, (off_t)bytes) < 0)
		return cai_fail_errno(err, errno, "cannot make a disk of %llu bytes in %s", (unsigned long long)bytes, s->root);
	if (run_mkfs(path, err) < 0) {
		unlinkat(s->root_fd, tmp, 0);
		return -1;
	}
	if (fsync(out) < 0 || renameat(s->root_fd, tmp, s->root_fd, name) < 0)
		return cai_fail_errno(err, errno, "cannot write %s/%s", s->root, name);
	return steal_fd(&out);
}

/* Copies what is not a hole. */
static int copy_data(int from, int to, off_t size)
{
	for (off_t at = 0; at < size;) {
		off_t data = lseek(from, at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -1;
		off_t end = lseek(from, data, SEEK_HOLE);
		if (end < 0)
			return -1;
		off_t in = data, out = data;
		while (in < end) {
			ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return -1;
		}
		at = end;
	}
	return 0;
}

bool disk_exists(const struct sandbox_dir *d)
{
	return faccessat(d->dir_fd, "upper.ext4", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int disk_open(struct store *s, struct sandbox_dir *d, uint64_t bytes, int from, struct cai_error *err)
{
	cleanup_close int fd = openat(d->dir_fd, "upper.ext4", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		return steal_fd(&fd);
	if (errno != ENOENT)
		return cai_fail_errno(err, errno, "cannot open %s/upper.ext4", d->path);
	bytes = align_up(bytes, MIB(1));
	cleanup_close int formatted = from >= 0 ? -1 : open_base(s, bytes, err);
	const int base = from >= 0 ? from : formatted;
	if (base < 0)
		return -1;
	fd = openat(d->dir_fd, ".upper.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || (ioctl(fd, FICLONE, base) < 0 && (ftruncate(fd, (off_t)bytes) < 0 || copy_data(base, fd, (off_t)bytes) < 0)) ||
	    renameat(d->dir_fd, ".upper.new", d->dir_fd, "upper.ext4") < 0)
		return cai_fail_errno(err, errno, "cannot make %s/upper.ext4", d->path);
	return steal_fd(&fd);
}

int disk_copy(int from_dir, int to_dir, struct cai_error *err)
{
	struct stat st;
	cleanup_close int from = openat(from_dir, "upper.ext4", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (from < 0 || fstat(from, &st) < 0)
		return cai_fail_errno(err, errno, "cannot open the disk");
	cleanup_close int to = openat(to_dir, ".upper.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (to < 0 || (ioctl(to, FICLONE, from) < 0 && (ftruncate(to, st.st_size) < 0 || copy_data(from, to, st.st_size) < 0)) || fdatasync(to) < 0 ||
	    renameat(to_dir, ".upper.new", to_dir, "upper.ext4") < 0)
		return cai_fail_errno(err, errno, "cannot copy the disk");
	return 0;
}

static uint64_t tree_bytes(int parent, const char *name, unsigned depth)
{
	struct stat st;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	uint64_t n = (uint64_t)st.st_blocks * 512;
	int fd = S_ISDIR(st.st_mode) && depth < 256 ? openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			n += tree_bytes(fd, e->d_name, depth + 1);
	return n;
}

uint64_t disk_used(const struct sandbox_dir *d)
{
	return tree_bytes(d->dir_fd, "upper.ext4", 0) + tree_bytes(d->dir_fd, "upper", 0);
}
