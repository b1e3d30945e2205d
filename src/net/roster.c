/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a user of the router is alive when its process is the one that was written down and
 * its descriptor still is the router's namespace. Both are asked of /proc, so a killed process needs nobody
 * to clean up after it.
 */
#include "net/roster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "net/netns.h"

#define STATE_MAX (256u << 10)
#define VERSION	  "caisson-router 1"

static unsigned long long start_time(pid_t pid)
{
	char path[64], text[1024];
	unsigned long long start = 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = 0;
	/* The 22nd field; the second is a name that may hold anything, and ends with the last ')'. */
	char *p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		start = strtoull(p, NULL, 10);
	return start;
}

static void read_line(struct roster *s, const char *line)
{
	char a[64], b[64];
	struct roster_user u;
	int pid;
	struct forwarding *f = &s->forwarding;
	if (sscanf(line, "plan %63s %63s", a, b) == 2) {
		if (ip_parse(a, &s->plan.pool4) < 0 || ip_parse(b, &s->plan.pool6) < 0)
			s->exists = false;
	} else if (sscanf(line, "namespace %" SCNu64, &s->ns_ino) == 1) {
		s->exists = true;
	} else if (sscanf(line, "addresses %" SCNu64, &s->host_addrs) == 1) {
		return;
	} else if (sscanf(line, "on4 %15s", a) == 1 && f->n4 < FORWARDING_MAX) {
		snprintf(f->on4[f->n4++], IFNAMSIZ, "%.15s", a);
	} else if (sscanf(line, "on6 %15s", a) == 1 && f->n6 < FORWARDING_MAX) {
		snprintf(f->on6[f->n6++], IFNAMSIZ, "%.15s", a);
	} else if (strcmp(line, "all6") == 0) {
		f->all6 = true;
	} else if (sscanf(line, "user %d %llu %d", &pid, &u.start, &u.fd) == 3) {
		struct roster_user *more = realloc(s->user, (s->n_users + 1) * sizeof(*more));
		if (!more)
			return;
		u.pid = pid;
		s->user = more;
		s->user[s->n_users++] = u;
	}
}

static void read_state(struct roster *s)
{
	cleanup_close int fd = openat(s->dir_fd, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_free char *text = fd < 0 ? NULL : malloc(STATE_MAX + 1);
	ssize_t n = text ? file_read_full(fd, text, STATE_MAX) : -1;
	char *at = text, *line;
	if (n <= 0)
		return;
	text[n] = 0;
	line = strsep(&at, "\n");
	if (!line || strcmp(line, VERSION) != 0)
		return;
	while ((line = strsep(&at, "\n")))
		read_line(s, line);
}

int roster_open(struct roster *s, int host_ns, struct cai_error *err)
{
	char name[40];
	memset(s, 0, sizeof(*s));
	s->lock_fd = s->dir_fd = -1;
	snprintf(name, sizeof(name), "net-%" PRIu64, netns_cookie(host_ns));
	if (mkdir("/run/caisson", 0711) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make /run/caisson");
	cleanup_close int run = open("/run/caisson", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (run < 0 || fstat(run, &st) < 0)
		return cai_fail_errno(err, errno, "cannot open /run/caisson");
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return cai_fail(err, EPERM,
				"/run/caisson belongs to somebody else, or others may write to it");
	if (mkdirat(run, name, 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make /run/caisson/%s", name);
	s->dir_fd = openat(run, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir_fd < 0)
		return cai_fail_errno(err, errno, "cannot open /run/caisson/%s", name);
	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = s->lock_fd;
	while (r >= 0 && (r = flock(s->lock_fd, LOCK_EX)) < 0 && errno == EINTR)
		r = 0;
	if (r < 0) {
		cai_fail_errno(err, errno, "cannot lock /run/caisson/%s", name);
		roster_close(s);
		return -1;
	}
	read_state(s);
	return 0;
}

void roster_close(struct roster *s)
{
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->user);
	memset(s, 0, sizeof(*s));
	s->lock_fd = s->dir_fd = -1;
}

int roster_save(struct roster *s, struct cai_error *err)
{
	cleanup_free char *text = NULL;
	char a[46], b[46];
	size_t n = 0;
	if (!s->exists) {
		if (unlinkat(s->dir_fd, "state", 0) < 0 && errno != ENOENT)
			return cai_fail_errno(err, errno, "cannot remove the state of the sandboxes' router");
		return 0;
	}
	FILE *f = open_memstream(&text, &n);
	if (!f)
		return cai_fail(err, ENOMEM, "out of memory");
	ip_format(&s->plan.pool4, a, sizeof(a));
	ip_format(&s->plan.pool6, b, sizeof(b));
	fprintf(f, VERSION "\nplan %s %s\nnamespace %" PRIu64 "\naddresses %" PRIu64 "\n", a, b, s->ns_ino,
		s->host_addrs);
	for (size_t k = 0; k < s->forwarding.n4; k++)
		fprintf(f, "on4 %s\n", s->forwarding.on4[k]);
	for (size_t k = 0; k < s->forwarding.n6; k++)
		fprintf(f, "on6 %s\n", s->forwarding.on6[k]);
	if (s->forwarding.all6)
		fputs("all6\n", f);
	for (size_t k = 0; k < s->n_users; k++)
		fprintf(f, "user %d %llu %d\n", (int)s->user[k].pid, s->user[k].start, s->user[k].fd);
	fclose(f);

	/* Written beside and renamed; no fsync, since after a crash of the host there is nothing to find. */
	cleanup_close int fd =
	    openat(s->dir_fd, "state.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (!text || fd < 0 || file_write_full(fd, text, n) < 0 ||
	    renameat(s->dir_fd, "state.new", s->dir_fd, "state") < 0)
		return cai_fail_errno(err, errno, "cannot write the state of the sandboxes' router");
	return 0;
}

int roster_add(struct roster *s, pid_t pid, int ns_fd, struct cai_error *err)
{
	struct roster_user *more = realloc(s->user, (s->n_users + 1) * sizeof(*more));
	if (!more)
		return cai_fail(err, ENOMEM, "out of memory");
	s->user = more;
	s->user[s->n_users++] = (struct roster_user){.pid = pid, .start = start_time(pid), .fd = ns_fd};
	return 0;
}

uint64_t roster_age_ms(const struct roster *s)
{
	struct stat st;
	uint64_t now = clock_real_ns();
	if (fstatat(s->dir_fd, "state", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return UINT64_MAX;
	uint64_t then = (uint64_t)st.st_mtim.tv_sec * 1000000000ull + (uint64_t)st.st_mtim.tv_nsec;
	return now > then ? (now - then) / 1000000 : 0;
}

static void drop(struct roster *s, size_t k)
{
	s->user[k] = s->user[--s->n_users];
}

void roster_drop_self(struct roster *s, int ns_fd)
{
	for (size_t k = 0; k < s->n_users; k++)
		if (s->user[k].pid == getpid() && s->user[k].fd == ns_fd) {
			drop(s, k);
			return;
		}
}

static int open_namespace_of(const struct roster_user *u, uint64_t ino)
{
	char path[64];
	struct stat st;
	if (start_time(u->pid) != u->start)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)u->pid, u->fd);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != ino)
		return -1;
	return steal_fd(&fd);
}

int roster_find_namespace(struct roster *s)
{
	cleanup_close int found = -1;
	for (size_t k = 0; k < s->n_users;) {
		cleanup_close int fd = open_namespace_of(&s->user[k], s->ns_ino);
		if (fd < 0) {
			drop(s, k);
			continue;
		}
		if (found < 0)
			found = steal_fd(&fd);
		k++;
	}
	return steal_fd(&found);
}

bool roster_in_use(const struct roster *s)
{
	/* The last to come is the likeliest to be there. */
	for (size_t k = s->n_users; k-- > 0;) {
		cleanup_close int fd = open_namespace_of(&s->user[k], s->ns_ino);
		if (fd >= 0)
			return true;
	}
	return false;
}

void roster_clear(struct roster *s)
{
	free(s->user);
	s->user = NULL;
	s->n_users = 0;
	s->exists = false;
}
