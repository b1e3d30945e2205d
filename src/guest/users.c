/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: both files are lines of fields between colons. A line is cut into fields in place of a copy on the
 * stack; a longer one is skipped, as is one with too few fields or a number that is none. libc's getpwnam is not used: it
 * would bring name services and locks into PID 1, and reads without a limit.
 */
#include "guest/users.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"

#define MAX_LINE  4096
#define MAX_FIELD 8
#define MAX_FILE  (1u << 20)
#define SMALL_FILE 4096

/* A decimal id that setuid(2) takes: the all-ones value means "leave unchanged" there. */
static bool parse_id(const char *s, uint32_t *id)
{
	uint64_t v = 0;
	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
		if (v >= UINT32_MAX)
			return false;
	}
	*id = (uint32_t)v;
	return true;
}

/* Takes the next line off *text into line and cuts it into fields. Returns their number, 0 for a line to skip, -1 at the end. */
static int next_entry(const char **text, char line[MAX_LINE], char *field[MAX_FIELD])
{
	if (!*text || !**text)
		return -1;
	const char *nl = strchr(*text, '\n');
	size_t n = nl ? (size_t)(nl - *text) : strlen(*text);
	const char *from = *text;
	*text += n + (nl != NULL);
	if (n >= MAX_LINE || n == 0 || from[0] == '#')
		return 0;
	memcpy(line, from, n);
	line[n] = 0;
	int fields = 0;
	for (char *p = line; p && fields < MAX_FIELD;) {
		field[fields++] = p;
		p = strchr(p, ':');
		if (p)
			*p++ = 0;
	}
	return fields;
}

/* Finds by name (or by uid, where name is NULL) and fills uid, gid, home; the entry's name goes to name_out. */
static bool find_user(const char *passwd, const char *name, uint32_t uid, struct guest_user *u, char name_out[256])
{
	char line[MAX_LINE], *f[MAX_FIELD];
	int n;
	while ((n = next_entry(&passwd, line, f)) >= 0) {
		uint32_t id, gid;
		if (n < 6 || !parse_id(f[2], &id) || !parse_id(f[3], &gid))
			continue;
		if (name ? strcmp(f[0], name) != 0 : id != uid)
			continue;
		u->uid = id;
		u->gid = gid;
		if (f[5][0] == '/' && strlen(f[5]) < sizeof(u->home))
			strcpy(u->home, f[5]);
		snprintf(name_out, 256, "%s", f[0]);
		return true;
	}
	return false;
}

static bool find_group(const char *group, const char *name, uint32_t *gid)
{
	char line[MAX_LINE], *f[MAX_FIELD];
	int n;
	while ((n = next_entry(&group, line, f)) >= 0)
		if (n >= 3 && !strcmp(f[0], name) && parse_id(f[2], gid))
			return true;
	return false;
}

/* Is name one of the words between commas? */
static bool listed(const char *list, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = list; p; p = strchr(p, ',')) {
		if (*p == ',')
			p++;
		if (!strncmp(p, name, n) && (p[n] == ',' || !p[n]))
			return n > 0;
	}
	return false;
}

/* Most groups of most images have no members: a line that ends with a colon need not be cut into fields. */
static const char *skip_without_members(const char *group)
{
	for (const char *end; group && (end = strchr(group, '\n')) && (end == group || end[-1] == ':');)
		group = end + 1;
	return group;
}

static void find_memberships(const char *group, const char *name, struct guest_user *u)
{
	char line[MAX_LINE], *f[MAX_FIELD];
	int n;
	group = skip_without_members(group);
	while ((n = next_entry(&group, line, f)) >= 0 && u->n_groups < GUEST_MAX_GROUPS) {
		uint32_t gid;
		if (n >= 4 && parse_id(f[2], &gid) && gid != u->gid && listed(f[3], name))
			u->groups[u->n_groups++] = gid;
		group = skip_without_members(group);
	}
}

int users_resolve(const char *spec, const char *passwd, const char *group, struct guest_user *u, struct cai_error *err)
{
	char who[256], name[256] = "";
	uint32_t id;

	*u = (struct guest_user){.home = "/"};
	const char *colon = strchr(spec, ':');
	size_t n = colon ? (size_t)(colon - spec) : strlen(spec);
	if (n >= sizeof(who))
		return cai_fail(err, 0, "the user name is longer than %zu characters", sizeof(who) - 1);
	memcpy(who, spec, n);
	who[n] = 0;

	if (!n) {
		find_user(passwd, NULL, 0, u, name);
	} else if (!find_user(passwd, who, 0, u, name)) {
		if (!parse_id(who, &id))
			return cai_fail(err, 0, "user \"%s\" is not in the guest's /etc/passwd", who);
		if (!find_user(passwd, NULL, id, u, name)) {
			u->uid = id;
			u->gid = 0;
		}
	}
	if (!colon) {
		if (name[0])
			find_memberships(group, name, u);
		return 0;
	}
	if (find_group(group, colon + 1, &id) || parse_id(colon + 1, &id)) {
		u->gid = id;
		return 0;
	}
	return cai_fail(err, 0, "group \"%.200s\" is not in the guest's /etc/group", colon + 1);
}

/* A whole file of the image, or NULL. Not blocking: an image may hold a FIFO of that name. It is read to small, if that is large enough. */
static char *slurp(const char *path, char *small, size_t n_small)
{
	struct stat st;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > MAX_FILE)
		return NULL;
	char *text = (size_t)st.st_size < n_small ? small : malloc((size_t)st.st_size + 1);
	if (!text)
		return NULL;
	ssize_t n = file_read_full(fd, text, (size_t)st.st_size);
	text[n > 0 ? n : 0] = 0;
	return text;
}

int users_lookup(const char *spec, struct guest_user *u, struct cai_error *err)
{
	/* Mostly they are small, and memory that is taken from the kernel and given back is not. */
	char small_passwd[SMALL_FILE], small_group[SMALL_FILE];
	char *passwd = slurp("/etc/passwd", small_passwd, sizeof(small_passwd));
	char *group = slurp("/etc/group", small_group, sizeof(small_group));
	int rc = users_resolve(spec, passwd, group, u, err);
	if (passwd != small_passwd)
		free(passwd);
	if (group != small_group)
		free(group);
	return rc;
}

char *users_passwd(void)
{
	return slurp("/etc/passwd", NULL, 0);
}

bool users_name(const char *passwd, uid_t uid, char *name, size_t size)
{
	struct guest_user u;
	char found[256];
	return find_user(passwd, NULL, uid, &u, found) && snprintf(name, size, "%s", found) < (int)size;
}
