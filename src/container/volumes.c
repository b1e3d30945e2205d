/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounted directories and tmpfs.
 *
 * Theory of operation: sources are cloned first, while the host's tree is still the root, and are the caller's word. Targets are resolved in the
 * container's root to a descriptor, and the mount is put on that descriptor, so a directory shared with another running container cannot be
 * exchanged for a link in between. Where the descriptor turns out to lie in /proc or /sys (a link in the image led there), it is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "container/internal.h"

#define MAX_OPTIONS 16

int volumes_open(struct child *c, struct cai_error *err)
{
	for (unsigned i = 0; i < c->spec->n_mounts; i++) {
		const struct container_mount *m = &c->spec->mounts[i];
		if (m->kind != CONTAINER_BIND)
			continue;
		c->sources[i] = mount_clone(AT_FDCWD, m->source, true);
		if (c->sources[i] < 0)
			return cai_fail_errno(err, errno, "cannot mount %.200s", m->source);
		uint64_t set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (m->readonly ? MOUNT_ATTR_RDONLY : 0);
		if (mount_change(c->sources[i], set, -1, true) < 0)
			return cai_fail_errno(err, errno, "cannot set the flags of the mount of %.200s", m->source);
		if (c->userns_fd >= 0 && mount_change(c->sources[i], 0, c->userns_fd, true) < 0) {
			c->report.no_idmap = true;
			return cai_fail_errno(err, errno, "%.200s cannot be mapped into a user namespace", m->source);
		}
	}
	return 0;
}

/* "size=64m,mode=1777,exec": what tmpfs itself understands and what is a flag of the mount. */
static int new_tmpfs(struct child *c, const struct container_mount *m, struct cai_error *err)
{
	cleanup_free char *text = strdup(m->options ? m->options : "");
	struct mount_option options[MAX_OPTIONS] = {{"mode", "1777"}};
	unsigned n = 1, attr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (m->readonly ? MOUNT_ATTR_RDONLY : 0);
	char ids[2][16];
	if (!text)
		return cai_fail_errno(err, ENOMEM, "cannot mount a tmpfs");
	char *save;
	for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		char *value = strchr(word, '=');
		if (value)
			*value++ = 0;
		if (!value && !strcmp(word, "exec"))
			attr &= ~(unsigned)MOUNT_ATTR_NOEXEC;
		else if (!value && !strcmp(word, "ro"))
			attr |= MOUNT_ATTR_RDONLY;
		else if (!value && (!strcmp(word, "rw") || !strcmp(word, "noexec") || !strcmp(word, "nosuid") || !strcmp(word, "nodev")))
			continue;
		else if (value && !strcmp(word, "mode"))
			options[0].value = value;
		else if (value && (!strcmp(word, "uid") || !strcmp(word, "gid")) && n < MAX_OPTIONS) {
			/* As the container counts: the kernel's own number is further up. */
			unsigned long id = strtoul(value, NULL, 10);
			char *out = ids[*word == 'g'];
			if (id >= CONTAINER_UID_COUNT && c->uid_base)
				return cai_fail(err, EINVAL, "tmpfs at %.200s: there is no %s %lu in the container", m->target, word, id);
			snprintf(out, sizeof(ids[0]), "%lu", c->uid_base + id);
			options[n++] = (struct mount_option){word, out};
		} else if (value && (!strcmp(word, "size") || !strcmp(word, "nr_inodes")) && n < MAX_OPTIONS)
			options[n++] = (struct mount_option){word, value};
		else
			return cai_fail(err, EINVAL, "tmpfs at %.200s: there is no option \"%.40s\"", m->target, word);
	}
	return mount_new("tmpfs", options, n, attr, err);
}

static int check_target(int target, const char *path, struct cai_error *err)
{
	struct statfs fs;
	if (fstatfs(target, &fs) < 0)
		return cai_fail_errno(err, errno, "cannot examine %.200s in the container", path);
	if (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP_SUPER_MAGIC || fs.f_type == CGROUP2_SUPER_MAGIC)
		return cai_fail(err, EPERM, "nothing may be mounted at %.200s: it lies in the container's /proc or /sys", path);
	return 0;
}

static bool is_root_or_dev(const struct child *c, int target)
{
	struct stat a, b;
	if (fstat(target, &a) < 0)
		return true;
	if (fstat(c->root_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return true;
	return fstat(c->dev_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int volumes_attach(struct child *c, struct cai_error *err)
{
	for (unsigned i = 0; i < c->spec->n_mounts; i++) {
		const struct container_mount *m = &c->spec->mounts[i];
		if (m->kind == CONTAINER_DIRECTORY) {
			cleanup_close int dir = inroot_make_dirs(c->root_fd, m->target, err);
			if (dir < 0)
				return -1;
			continue;
		}
		cleanup_close int made = m->kind == CONTAINER_TMPFS ? new_tmpfs(c, m, err) : -1;
		int source = m->kind == CONTAINER_TMPFS ? made : c->sources[i];
		struct stat st;
		if (source < 0)
			return cai_wrap(err, "%.200s", m->target);
		if (fstat(source, &st) < 0)
			return cai_fail_errno(err, errno, "cannot examine %.200s", m->source);
		cleanup_close int target = S_ISDIR(st.st_mode) ? inroot_make_dirs(c->root_fd, m->target, err) : inroot_make_file(c->root_fd, m->target, err);
		if (target < 0 || check_target(target, m->target, err) < 0)
			return -1;
		if (is_root_or_dev(c, target))
			return cai_fail(err, EINVAL, "nothing may be mounted at %.200s itself", m->target);
		if (mount_attach(source, target, err) < 0)
			return cai_wrap(err, "%.200s", m->target);
	}
	return 0;
}
