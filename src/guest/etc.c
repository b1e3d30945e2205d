/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a plain file that has no other name is written in place: on an overlay, whose upper layer has it already after
 * etc_prepare, that is the least work. Anything else is unlinked, and a new file written, so no link of the image is followed.
 * On a read-only root a new file in /dev is mounted over it instead, and its name there is taken away again.
 */
#include "guest/etc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/kernel_abi.h"

#define MODE        0644
#define TMPFS_MAGIC 0x01021994

static int write_new(int dir, const char *name, const char *text)
{
	cleanup_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	fchmod(fd, 0644);
	return file_write_full(fd, text, strlen(text));
}

/* May be written to as it is. */
static bool is_plain(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_nlink == 1 && st->st_uid == geteuid();
}

/* True: done. False: it must be made anew. */
static bool write_in_place(int dir, const char *name, const char *text)
{
	struct stat st;
	cleanup_close int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !is_plain(&st))
		return false;
	if ((st.st_mode & 07777) != MODE && fchmod(fd, MODE) < 0)
		return false;
	return (st.st_size == 0 || ftruncate(fd, 0) == 0) && file_write_full(fd, text, strlen(text)) == 0;
}

static int mount_over(const char *name, const char *text)
{
	char path[64], file[64];
	struct stat st;
	snprintf(path, sizeof(path), "/etc/%.32s", name);
	snprintf(file, sizeof(file), "/dev/.caisson-%.32s", name);
	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		errno = EROFS;
		return -1;
	}
	int rc = write_new(AT_FDCWD, file, text);
	if (rc == 0)
		rc = mount(file, path, NULL, MS_BIND, NULL);
	int e = errno;
	unlink(file);
	errno = e;
	return rc;
}

static int replace(int etc, const char *name, const char *text, struct cai_error *err)
{
	if (write_in_place(etc, name, text))
		return 0;
	int rc = unlinkat(etc, name, 0);
	if (rc == 0 || errno == ENOENT)
		rc = write_new(etc, name, text);
	if (rc < 0 && errno == EROFS)
		rc = mount_over(name, text);
	return rc < 0 ? cai_fail_errno(err, errno, "cannot write /etc/%s in the guest", name) : 0;
}

/* Writes a file that is absent or empty; any other is the image's own business, and so is a root that takes none. */
static void fill_if_empty(int etc, const char *name, const char *text)
{
	struct stat st;
	if (fstatat(etc, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (!S_ISREG(st.st_mode) || st.st_size != 0))
		return;
	if (write_in_place(etc, name, text))
		return;
	unlinkat(etc, name, 0);
	if (write_new(etc, name, text) < 0)
		unlinkat(etc, name, 0);
}

static const char *const names[ETC_FILES] = {"hostname", "hosts", "resolv.conf"};

void etc_prepare(struct etc *e, const char *dir)
{
	mkdir(dir, 0755);
	cleanup_close int etc = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	etc_forget(e);
	for (size_t i = 0; etc >= 0 && i < ETC_FILES; i++) {
		struct stat st;
		if (fstatat(etc, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0 ? errno != ENOENT : !S_ISREG(st.st_mode))
			continue;
		cleanup_close int fd = openat(etc, names[i], O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd < 0 || fstat(fd, &st) < 0 || !is_plain(&st))
			continue;
		e->ours[i] = st.st_size == 0 || (st.st_size == 1 && e->ours[i]);
		e->size[i] = (size_t)st.st_size;
		e->mode[i] = st.st_mode & 07777;
		/* A block of its own, which is then written over. (A file that was cut to nothing and written to ext4 flushes when it is closed.) */
		if (st.st_size == 0 && pwrite(fd, "\n", 1, 0) == 1)
			e->size[i] = 1;
		e->fd[i] = steal_fd(&fd);
	}
}

void etc_forget(struct etc *e)
{
	for (size_t i = 0; i < ETC_FILES; i++)
		if (e->fd[i] >= 0)
			close(steal_fd(&e->fd[i]));
}

static bool write_prepared(const struct etc *e, unsigned i, const char *text)
{
	size_t n = strlen(text);
	if (e->mode[i] != MODE && fchmod(e->fd[i], MODE) < 0)
		return false;
	return pwrite(e->fd[i], text, n, 0) == (ssize_t)n && (e->size[i] <= n || ftruncate(e->fd[i], (off_t)n) == 0);
}

/* *etc is opened when it is needed. must: the file says this, whatever the image has. */
static int write_one(const struct etc *e, unsigned i, int *etc, const char *text, bool must, struct cai_error *err)
{
	if (e->fd[i] >= 0 && ((!must && !e->ours[i]) || write_prepared(e, i, text)))
		return 0;
	if (*etc < 0) {
		mkdir("/etc", 0755);
		*etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (*etc < 0)
		return must ? cai_fail_errno(err, errno, "the guest has no directory /etc") : 0;
	if (must)
		return replace(*etc, names[i], text, err);
	fill_if_empty(*etc, names[i], text);
	return 0;
}

int etc_write(struct etc *e, const struct agent_setup *m, struct cai_error *err)
{
	const char *name = m->hostname ? m->hostname : "";
	bool hosts = m->hosts && *m->hosts, resolv = m->resolv_conf && *m->resolv_conf;
	char hostname[80], usual[256];
	cleanup_close int etc = -1;

	/* As with docker hostname always says the sandbox's name, where it can. */
	snprintf(hostname, sizeof(hostname), "%.64s\n", name);
	if (*name && write_one(e, ETC_HOSTNAME, &etc, hostname, true, NULL) < 0)
		errno = 0;
	snprintf(usual, sizeof(usual), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s%.64s%s", *name ? "127.0.1.1\t" : "", name,
		 *name ? "\n" : "");
	int rc = write_one(e, ETC_HOSTS, &etc, hosts ? m->hosts : usual, hosts, err);
	/* No name server: resolvers then ask 127.0.0.1, and this makes them give up at once instead of after 10 s. */
	if (rc == 0)
		rc = write_one(e, ETC_RESOLV, &etc, resolv ? m->resolv_conf : "options timeout:1 attempts:1\n", resolv, err);
	etc_forget(e);
	return rc;
}

/* Opens what is on the same mount as dir: EXDEV where something else is mounted there. */
static int open_same_mount(int dir, const char *name, int flags)
{
	struct guest_open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
				     .resolve = GUEST_RESOLVE_NO_XDEV | GUEST_RESOLVE_NO_MAGIC | GUEST_RESOLVE_IN_ROOT};
	return (int)syscall(GUEST_NR_OPENAT2, dir, name, &how, sizeof(how));
}

/* A file that is mounted there: written if it is mount_over's, which has no name and lies in /dev's memory. */
static int rewrite_mounted(int etc, const char *name, const char *text)
{
	struct stat st;
	struct statfs fs;
	cleanup_close int fd = openat(etc, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 0 || fs.f_type != TMPFS_MAGIC)
		return 0;
	return ftruncate(fd, 0) < 0 ? -1 : file_write_full(fd, text, strlen(text));
}

static int renew(int etc, const char *name, const char *text, mode_t mode)
{
	char temporary[64];
	cleanup_close int there = open_same_mount(etc, name, O_PATH | O_NOFOLLOW);
	if (there < 0 && errno == EXDEV)
		return rewrite_mounted(etc, name, text);
	snprintf(temporary, sizeof(temporary), ".caisson-%.32s", name);
	unlinkat(etc, temporary, 0);
	int rc = write_new(etc, temporary, text);
	if (rc < 0 && errno == EROFS)
		return mount_over(name, text);
	if (rc == 0 && mode != 0644)
		rc = fchmodat(etc, temporary, mode, 0);
	if (rc == 0)
		rc = renameat(etc, temporary, etc, name);
	if (rc < 0) {
		int e = errno;
		unlinkat(etc, temporary, 0);
		errno = e;
	}
	return rc;
}

/* A failure leaves the old id: no reason not to run. */
static void renew_machine_id(int etc)
{
	struct stat st;
	uint8_t id[16];
	char text[2 * sizeof(id) + 2];
	if (fstatat(etc, "machine-id", &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0 ||
	    getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return;
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* machine-id(5): as a random UUID */
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(id); i++)
		snprintf(text + 2 * i, 3, "%02x", id[i]);
	memcpy(text + 2 * sizeof(id), "\n", 2);
	renew(etc, "machine-id", text, st.st_mode & 07777);
}

int etc_renew(const struct agent_setup *m, struct cai_error *err)
{
	const struct {
		const char *name, *text;
	} files[] = {{"hosts", m->hosts}, {"resolv.conf", m->resolv_conf}};
	char hostname[80];

	cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int etc = open_same_mount(root, "etc", O_RDONLY | O_DIRECTORY);
	if (etc < 0 && (errno == EXDEV || errno == ENOENT))
		return 0;
	if (etc < 0)
		return cai_fail_errno(err, errno, "cannot open /etc in the guest");
	if (m->hostname && *m->hostname) {
		snprintf(hostname, sizeof(hostname), "%.64s\n", m->hostname);
		renew(etc, "hostname", hostname, 0644); /* as in etc_write: good to have */
	}
	renew_machine_id(etc);
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (files[i].text && *files[i].text && renew(etc, files[i].name, files[i].text, 0644) < 0)
			return cai_fail_errno(err, errno, "cannot write /etc/%s in the guest", files[i].name);
	return 0;
}
