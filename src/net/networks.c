/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A named network is a name for a link group (net/rules.h): whoever has the group is a member. The file only
 * keeps the name and its number, so there is no list of members to be kept true; who is a member is asked of
 * the links.
 *
 * Creating is making a file that must not exist (link(2) of a whole one), so of two at once one wins.
 * Removing looks for members first; a sandbox that joins between the look and the removal keeps a network
 * that nobody else can join, which harms nothing.
 */
#include "net/networks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "net/publish.h"
#include "net/router.h"

#define FILE_MAX 4096u
#define LEAVING_MS 1000
#define SUFFIX	 ".json"

static int open_folder(int root_fd, bool make, struct cai_error *err)
{
	if (make && mkdirat(root_fd, "networks", 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make the folder networks");
	int fd = openat(root_fd, "networks", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? cai_fail(err, ENOENT, "there are no networks")
				       : cai_fail_errno(err, errno, "cannot open the folder networks");
	return fd;
}

static int check_name(const char *name, struct cai_error *err)
{
	if (!net_name_ok(name))
		return cai_fail(err, EINVAL,
				"'%.64s' cannot be a network's name: up to %d letters, digits, '.', '_' and "
				"'-', the first a letter or digit",
				name, NET_NAME_MAX);
	if (strcmp(name, "none") == 0 || strcmp(name, "private") == 0 || strcmp(name, "host") == 0 ||
	    strcmp(name, "bridge") == 0 || strcmp(name, "default") == 0)
		return cai_fail(err, EINVAL, "'%s' means something else where a network is named", name);
	return 0;
}

static int read_network(int folder, const char *file, struct network *out, struct cai_error *err)
{
	char text[FILE_MAX + 1];
	cleanup_close int fd = openat(folder, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : file_read_full(fd, text, FILE_MAX);
	if (n < 0)
		return cai_fail_errno(err, errno, "cannot read networks/%s", file);
	memset(out, 0, sizeof(*out));
	json_t *o = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	const char *id = json_string_value(json_object_get(o, "id"));
	json_int_t group = json_integer_value(json_object_get(o, "group"));
	bool good = id && strlen(id) == sizeof(out->id) - 1 && group > 0 && group <= INT32_MAX;
	if (good) {
		snprintf(out->id, sizeof(out->id), "%s", id);
		snprintf(out->name, sizeof(out->name), "%.*s", (int)(strlen(file) - strlen(SUFFIX)), file);
		out->group = (uint32_t)group;
		out->internal = (out->group & GROUP_INTERNAL) != 0;
		out->created = (uint64_t)json_integer_value(json_object_get(o, "created"));
	}
	json_decref(o);
	return good ? 0 : cai_fail(err, EINVAL, "networks/%s is damaged; remove it", file);
}

int network_load(int root_fd, const char *name, struct network *out, struct cai_error *err)
{
	char file[NET_NAME_MAX + 8];
	struct cai_error e;
	if (check_name(name, err) < 0)
		return -1;
	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	cleanup_close int folder = open_folder(root_fd, false, &e);
	if (folder >= 0 && read_network(folder, file, out, &e) == 0)
		return 0;
	if (e.errnum == ENOENT)
		return cai_fail(err, ENOENT, "there is no network '%s'; 'caisson network create %s' makes it",
				name, name);
	if (err)
		*err = e;
	return -1;
}

static bool group_taken(int folder, uint32_t group)
{
	cleanup_close int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	struct network n;
	if (!d)
		return false;
	copy = -1; /* d's now */
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && read_network(folder, e->d_name, &n, NULL) == 0 &&
		    (n.group | GROUP_INTERNAL) == (group | GROUP_INTERNAL))
			return true;
	return false;
}

int network_create(int root_fd, const char *name, bool internal, struct network *out, struct cai_error *err)
{
	char file[NET_NAME_MAX + 8], temporary[64], text[256];
	uint8_t id[16];
	if (check_name(name, err) < 0)
		return -1;
	cleanup_close int folder = open_folder(root_fd, true, err);
	if (folder < 0)
		return -1;
	memset(out, 0, sizeof(*out));
	do {
		if (getrandom(id, sizeof(id), 0) != sizeof(id))
			return cai_fail_errno(err, errno, "cannot get random bytes");
		memcpy(&out->group, id, 4);
		out->group = (out->group & 0x3fffffff) | 1 | (internal ? GROUP_INTERNAL : 0);
	} while (group_taken(folder, out->group));
	for (unsigned k = 0; k < 16; k++)
		snprintf(out->id + 2 * k, 3, "%02x", id[k]);
	snprintf(out->name, sizeof(out->name), "%s", name);
	out->internal = internal;
	out->created = (uint64_t)time(NULL);

	int n = snprintf(text, sizeof(text),
			 "{\"id\": \"%s\", \"group\": %" PRIu32 ", \"created\": %" PRIu64 "}\n", out->id,
			 out->group, out->created);
	snprintf(temporary, sizeof(temporary), ".new-%s", out->id);
	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	cleanup_close int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int result = 0;
	if (fd < 0 || file_write_full(fd, text, (size_t)n) < 0 || fsync(fd) < 0)
		result = cai_fail_errno(err, errno, "cannot write networks/%s", file);
	else if (linkat(folder, temporary, folder, file, 0) < 0)
		result = errno == EEXIST ? cai_fail(err, EEXIST, "there is a network '%s' already", name)
					 : cai_fail_errno(err, errno, "cannot make networks/%s", file);
	unlinkat(folder, temporary, 0);
	if (result == 0)
		fsync(folder);
	return result;
}

int network_remove(int root_fd, const char *name, struct cai_error *err)
{
	char file[NET_NAME_MAX + 8];
	struct network net;
	struct network_member *members;
	size_t n;
	if (network_load(root_fd, name, &net, err) < 0 || network_members(&net, &members, &n, err) < 0)
		return -1;
	/* The kernel takes the link of a sandbox that has just ended away a moment later. */
	for (unsigned ms = 0; n && ms < LEAVING_MS; ms += 20) {
		free(members);
		usleep(20000);
		if (network_members(&net, &members, &n, err) < 0)
			return -1;
	}
	if (n) {
		cai_fail(err, EBUSY, "the network '%s' has %zu member%s, among them %s", name, n,
			 n == 1 ? "" : "s", members[0].name[0] ? members[0].name : members[0].id);
		free(members);
		return -1;
	}
	free(members);
	cleanup_close int folder = open_folder(root_fd, false, err);
	if (folder < 0)
		return -1;
	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	return unlinkat(folder, file, 0) < 0 ? cai_fail_errno(err, errno, "cannot remove networks/%s", file)
					     : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct network *)a)->name, ((const struct network *)b)->name);
}

int network_list(int root_fd, struct network **list, size_t *n, struct cai_error *err)
{
	struct cai_error e;
	*list = NULL;
	*n = 0;
	cleanup_close int folder = open_folder(root_fd, false, &e);
	if (folder < 0) {
		if (err)
			*err = e;
		return e.errnum == ENOENT ? 0 : -1;
	}
	cleanup_close int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return cai_fail_errno(err, errno, "cannot list the folder networks");
	copy = -1;
	struct dirent *f;
	while ((f = readdir(d))) {
		size_t len = strlen(f->d_name);
		if (f->d_name[0] == '.' || len <= strlen(SUFFIX) ||
		    strcmp(f->d_name + len - strlen(SUFFIX), SUFFIX) != 0)
			continue;
		struct network *more = realloc(*list, (*n + 1) * sizeof(*more));
		if (!more) {
			free(*list);
			*list = NULL;
			return cai_fail(err, ENOMEM, "out of memory");
		}
		*list = more;
		/* One that was removed meanwhile, or is damaged, is not listed. */
		if (read_network(folder, f->d_name, &more[*n], NULL) == 0)
			(*n)++;
	}
	if (*n)
		qsort(*list, *n, sizeof(**list), by_name);
	return 0;
}

struct collect {
	const struct router *router;
	uint32_t group;
	struct network_member *list;
	size_t n;
	bool failed;
};

static int one_member(const struct rtnl_link *l, void *ctx)
{
	struct collect *c = ctx;
	unsigned number;
	if (l->group != c->group || sscanf(l->name, SANDBOX_PREFIX "%u", &number) != 1)
		return 0;
	struct network_member *more = realloc(c->list, (c->n + 1) * sizeof(*more));
	if (!more) {
		c->failed = true;
		return 1;
	}
	c->list = more;
	struct network_member *m = &more[c->n++];
	memset(m, 0, sizeof(*m));
	if (sscanf(l->alias, "%79s %79s", m->id, m->name) != 2 || strcmp(m->name, "-") == 0)
		m->name[0] = 0;
	struct ip_addr a4 = plan_addr4(&c->router->plan, number), a6 = plan_addr6(&c->router->plan, number);
	ip_format(&a4, m->addr4, sizeof(m->addr4));
	if (c->router->has6)
		ip_format(&a6, m->addr6, sizeof(m->addr6));
	return 0;
}

int network_members(const struct network *net, struct network_member **list, size_t *n, struct cai_error *err)
{
	struct router r;
	struct cai_error e;
	struct collect c = {.router = &r, .group = net->group};
	*list = NULL;
	*n = 0;
	if (!net_privileged())
		return 0; /* without root there are no members to see */
	if (router_find(&r, &e) < 0) {
		if (err)
			*err = e;
		return e.errnum == ENOENT ? 0 : -1;
	}
	int result = rtnl_each_link(r.route_fd, one_member, &c, err);
	router_close(&r);
	if (result == 0 && c.failed)
		result = cai_fail(err, ENOMEM, "out of memory");
	if (result < 0) {
		free(c.list);
		return -1;
	}
	*list = c.list;
	*n = c.n;
	return 0;
}
