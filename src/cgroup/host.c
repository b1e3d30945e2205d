/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host offers.
 *
 * Theory of operation: /proc/self/mountinfo names every hierarchy: "cgroup2" is v2, "cgroup" is v1 with its controllers among the super options. A
 * hybrid host has both; there a controller belongs to whichever hierarchy has it, v1 first, since what v1 has bound v2 does not offer. Groups are
 * made under the mount point, which is the root of the hierarchy or, in a container, of what this container sees of it. Where that may not
 * be written, the caller's own group is tried (a delegated one). No systemd is asked.
 */
#include "cgroup/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"

static const char *const names[CGROUP_N] = {"memory", "cpu", "pids", "freezer", "cpuacct"};

const char *cgroup_controller_name(int bit)
{
	return names[bit];
}

int cgroup_read_file(const char *dir, const char *name, char *text, size_t size)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return errno = ENAMETOOLONG, -1;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = file_read_full(fd, text, size - 1);
	if (n < 0)
		return -1;
	text[n] = 0;
	return 0;
}

int cgroup_write_file(const char *dir, const char *name, const char *text)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return errno = ENAMETOOLONG, -1;
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size_t n = strlen(text);
	ssize_t r;
	do
		r = write(fd, text, n); /* one write: the kernel takes a value whole */
	while (r < 0 && errno == EINTR);
	return r == (ssize_t)n ? 0 : -1;
}

uint64_t cgroup_field(const char *text, const char *key)
{
	size_t n = strlen(key);
	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, key, n) && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	}
	return 0;
}

/* Whether a comma- or space-separated list has the word. */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || strchr(", \n", p[-1])) && (!p[n] || strchr(", \n", p[n])))
			return true;
	return false;
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *to = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* One line: "36 35 98:0 ROOT MOUNTPOINT opts [optional...] - FSTYPE SOURCE SUPEROPTS". */
static void parse_line(struct cgroup_host *h, char *line, char **v2)
{
	char *dash = strstr(line, " - ");
	if (!dash)
		return;
	*dash = 0;
	char *save, *type = strtok_r(dash + 3, " ", &save), *source = strtok_r(NULL, " ", &save), *super = strtok_r(NULL, " ", &save);
	if (!type || !source || !super || strncmp(type, "cgroup", 6))
		return;
	char *point = strtok_r(line, " ", &save);
	for (int i = 0; i < 4 && point; i++)
		point = strtok_r(NULL, " ", &save);
	if (!point || *point != '/')
		return;
	unescape(point);
	if (!strcmp(type, "cgroup2")) {
		if (!*v2)
			*v2 = strdup(point);
		return;
	}
	if (strcmp(type, "cgroup"))
		return;
	for (int i = 0; i < CGROUP_N; i++)
		if (has_word(super, names[i]) && !h->base[i] && (h->base[i] = strdup(point)))
			h->have |= 1u << i;
}

void cgroup_host_parse(struct cgroup_host *h, char *mountinfo, unsigned *v2_bits)
{
	*h = (struct cgroup_host){.layout = CGROUP_NONE};
	*v2_bits = 0;
	cleanup_free char *v2 = NULL;
	char *save;
	for (char *line = strtok_r(mountinfo, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		parse_line(h, line, &v2);
	if (h->have)
		h->layout = v2 ? CGROUP_HYBRID : CGROUP_V1;
	else if (v2)
		h->layout = CGROUP_V2;
	for (int i = 0; v2 && i < CGROUP_N; i++)
		if (!h->base[i] && (h->base[i] = strdup(v2)))
			*v2_bits |= 1u << i;
}

/* The controllers that a v2 directory can pass on; freezing and CPU accounting belong to every group there. */
static unsigned v2_controllers(const char *dir)
{
	char text[512];
	unsigned have = 0;
	if (cgroup_read_file(dir, "cgroup.controllers", text, sizeof(text)) < 0)
		return 0;
	for (int i = 0; i < CGROUP_N; i++)
		if (has_word(text, names[i]))
			have |= 1u << i;
	return have | CGROUP_FREEZER | CGROUP_CPUACCT;
}

/* Whether a path from the kernel goes up: a group outside of what this cgroup namespace shows. */
static bool goes_up(const char *path)
{
	for (const char *p = path; (p = strstr(p, "/..")); p += 3)
		if (!p[3] || p[3] == '/')
			return true;
	return false;
}

char *cgroup_own_group(const char *own, const char *controller, const char *base)
{
	while (*own) {
		size_t n = strcspn(own, "\n");
		char line[4096], *out = NULL;
		if (n < sizeof(line)) {
			memcpy(line, own, n);
			line[n] = 0;
			char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
			if (path) {
				*path++ = 0;
				if (*controller ? has_word(list + 1, controller) : !list[1])
					return path[0] != '/' || !path[1] || goes_up(path) || asprintf(&out, "%s%s", base, path) < 0 ? NULL : out;
			}
		}
		own += n + (own[n] == '\n');
	}
	return NULL;
}

static bool writable(const char *dir)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/" CGROUP_PARENT, dir) >= sizeof(path))
		return false;
	if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
		return true;
	return errno == ENOENT && faccessat(AT_FDCWD, dir, W_OK, AT_EACCESS) == 0;
}

int cgroup_host_find(struct cgroup_host *h)
{
	cleanup_free char *mounts = NULL, *own = NULL;
	struct cai_error err;
	size_t n;
	*h = (struct cgroup_host){.layout = CGROUP_NONE};
	if (file_read_all("/proc/self/mountinfo", MIB(16), &mounts, &n, &err) < 0)
		return -1;
	unsigned v2_bits;
	cgroup_host_parse(h, mounts, &v2_bits);
	for (int i = 0; i < CGROUP_N; i++) {
		bool v2 = v2_bits & (1u << i);
		if (!h->base[i])
			continue;
		if (!writable(h->base[i])) {
			if (!own && file_read_all("/proc/self/cgroup", KIB(64), &own, &n, &err) < 0)
				return -1;
			char *mine = cgroup_own_group(own, v2 ? "" : names[i], h->base[i]);
			if (mine && !writable(mine)) {
				free(mine);
				mine = NULL;
			}
			h->no_permission |= !mine;
			free(h->base[i]);
			h->base[i] = mine;
		}
		if (h->base[i] && (!v2 || (v2_controllers(h->base[i]) & (1u << i)))) {
			h->have |= 1u << i;
			h->v2 |= v2 ? 1u << i : 0;
		} else {
			free(h->base[i]);
			h->base[i] = NULL;
			h->have &= ~(1u << i);
		}
	}
	return 0;
}

void cgroup_host_free(struct cgroup_host *h)
{
	for (int i = 0; i < CGROUP_N; i++)
		free(h->base[i]);
	*h = (struct cgroup_host){.layout = CGROUP_NONE};
}

enum cgroup_layout cgroup_probe(unsigned *have)
{
	struct cgroup_host h;
	if (cgroup_host_find(&h) < 0)
		h = (struct cgroup_host){.layout = CGROUP_NONE};
	enum cgroup_layout layout = h.layout;
	*have = h.have;
	cgroup_host_free(&h);
	return layout;
}

void cgroup_missing(char *text, size_t size)
{
	struct cgroup_host h;
	*text = 0;
	if (cgroup_host_find(&h) < 0) {
		snprintf(text, size, "/proc/self/mountinfo cannot be read, so limits cannot be kept");
		return;
	}
	char list[128] = "";
	for (int i = 0; i < 3; i++)
		if (!(h.have & (1u << i)))
			snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", *list ? ", " : "", names[i]);
	if (h.layout == CGROUP_NONE)
		snprintf(text, size, "no control groups are mounted on this host, so memory, CPU and process limits cannot be kept");
	else if (*list && h.no_permission)
		snprintf(text, size, "this user may not make control groups here, so limits of %s cannot be kept (run as root, or in a delegated group: "
				     "systemd-run --user --scope -p Delegate=yes)", list);
	else if (*list)
		snprintf(text, size, "this host's control groups lack %s, so such limits cannot be kept", list);
	cgroup_host_free(&h);
}
