/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev, /proc, /sys, and the files that tell a container who and where it is.
 *
 * Theory of operation: each of the three is a fresh mount that the image has no part in, put onto a directory (never a link) of the root; what is
 * done inside is done relative to that mount's descriptor, so it cannot be led elsewhere. Masked files are covered by the container's own
 * /dev/null, masked directories by one empty read-only tmpfs, read-only ones by a read-only clone of themselves: the lists are docker's.
 *
 * Device nodes are made, not bound from the host: a bound node is the host's inode, whose mode the container's root could change. Nobody in
 * the container can use a node of his own making: /dev is nodev, and the six nodes are opened through mounts of their own that are not.
 * Without privileges on the host (rootless) nodes cannot be made; then the host's are bound, and belong to nobody there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"

#define NO_EXEC (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static const struct {
	const char *name;
	unsigned major, minor;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const struct {
	const char *name, *to;
} links[] = {{"fd", "/proc/self/fd"},	      {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	     {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},	    {"core", "/proc/kcore"}};

static const char *const proc_masked[] = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
					  "timer_list", "timer_stats"};
static const char *const proc_readonly[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
static const char *const sys_masked[] = {"firmware", "devices/virtual/powercap"};

/* A node for which the mount at its place says yes to devices; /dev itself will say no. */
static int add_node(struct child *c, unsigned i, struct cai_error *err)
{
	cleanup_close int tree = -1, place = -1;
	if (c->rootless) {
		char path[64];
		struct stat st;
		snprintf(path, sizeof(path), "/dev/%s", nodes[i].name);
		tree = mount_clone(AT_FDCWD, path, false);
		if (tree < 0 || fstat(tree, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(nodes[i].major, nodes[i].minor))
			return cai_fail_errno(err, tree < 0 ? errno : ENODEV, "cannot use the host's %s", path);
		int fd = openat(c->dev_fd, nodes[i].name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
		if (fd >= 0)
			close(fd);
	} else {
		if (mknodat(c->dev_fd, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0)
			return cai_fail_errno(err, errno, "cannot make /dev/%s", nodes[i].name);
		tree = mount_clone(c->dev_fd, nodes[i].name, false);
		if (tree < 0)
			return cai_fail_errno(err, errno, "cannot open /dev/%s", nodes[i].name);
	}
	place = openat(c->dev_fd, nodes[i].name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (place < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/%s", nodes[i].name);
	if (mount_attach(tree, place, err) < 0)
		return cai_wrap(err, "/dev/%s", nodes[i].name);
	if (i == 0)
		c->null_tree = steal_fd(&tree);
	return 0;
}

static int sub_mount(int parent, const char *name, int mount, struct cai_error *err)
{
	cleanup_close int fd = mount;
	if (fd < 0)
		return -1;
	if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make /dev/%s", name);
	cleanup_close int place = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (place < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/%s", name);
	return mount_attach(fd, place, err);
}

/* An image may use its own /dev for anything; what the container sees is this one. */
int system_dev(struct child *c, struct cai_error *err)
{
	cleanup_close int place = inroot_own_dir(c->root_fd, "dev", err);
	if (place < 0)
		return -1;
	struct mount_option options[] = {{"mode", "0755"}, {"size", "64m"}};
	c->dev_fd = mount_new("tmpfs", options, ARRAY_LEN(options), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
	if (c->dev_fd < 0 || mount_attach(c->dev_fd, place, err) < 0)
		return -1;
	mode_t mask = umask(0);
	int r = 0;
	for (unsigned i = 0; i < ARRAY_LEN(nodes) && r == 0; i++)
		r = add_node(c, i, err);
	umask(mask);
	for (unsigned i = 0; i < ARRAY_LEN(links) && r == 0; i++)
		if (symlinkat(links[i].to, c->dev_fd, links[i].name) < 0)
			r = cai_fail_errno(err, errno, "cannot make /dev/%s", links[i].name);
	if (r < 0)
		return -1;

	char gid[16], size[32];
	snprintf(gid, sizeof(gid), "%u", c->uid_base + 5);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)(c->spec->shm_size ? c->spec->shm_size : MIB(64)));
	struct mount_option pts[] = {{"newinstance", NULL}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", gid}};
	struct mount_option shm[] = {{"mode", "1777"}, {"size", size}};
	/* Group 5 (tty) exists for the rootless only where a range of ids is mapped. */
	unsigned n_pts = c->rootless ? ARRAY_LEN(pts) - 1 : ARRAY_LEN(pts);
	if (sub_mount(c->dev_fd, "pts", mount_new("devpts", pts, n_pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err), err) < 0 ||
	    sub_mount(c->dev_fd, "shm", mount_new("tmpfs", shm, ARRAY_LEN(shm), NO_EXEC, err), err) < 0)
		return -1;
	int mqueue = mount_new("mqueue", NULL, 0, NO_EXEC, err);
	if (mqueue < 0 && err->errnum != ENODEV)
		return -1;
	if (mqueue >= 0 && sub_mount(c->dev_fd, "mqueue", mqueue, err) < 0)
		return -1;
	if (mount_change(c->dev_fd, MOUNT_ATTR_NODEV, -1, false) < 0)
		return cai_fail_errno(err, errno, "cannot close /dev to other devices");
	return 0;
}

/* Something below one of our own mounts; -1 with ENOENT where this kernel does not have it. */
static int below(int fd, const char *name)
{
	return openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* Covers files and directories that tell about the host. *empty is made at first need, and cloned afterwards. */
static int mask(struct child *c, int fs, const char *const *names, unsigned n, int *empty, struct cai_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		cleanup_close int place = below(fs, names[i]), cover = -1;
		struct stat st;
		if (place < 0 && errno == ENOENT)
			continue;
		if (place < 0 || fstat(place, &st) < 0)
			return cai_fail_errno(err, errno, "cannot mask %s", names[i]);
		if (!S_ISDIR(st.st_mode)) {
			cover = mount_clone(c->null_tree, "", false);
		} else if (*empty >= 0) {
			cover = mount_clone(*empty, "", false);
		} else {
			struct mount_option options[] = {{"mode", "0555"}, {"size", "4k"}, {"nr_inodes", "1"}};
			*empty = mount_new("tmpfs", options, ARRAY_LEN(options), NO_EXEC | MOUNT_ATTR_RDONLY, err);
			if (*empty < 0 || mount_attach(*empty, place, err) < 0)
				return cai_wrap(err, "cannot mask %s", names[i]);
			continue;
		}
		if (cover < 0)
			return cai_fail_errno(err, errno, "cannot mask %s", names[i]);
		if (mount_attach(cover, place, err) < 0)
			return cai_wrap(err, "cannot mask %s", names[i]);
	}
	return 0;
}

static int freeze(int fs, const char *name, struct cai_error *err)
{
	cleanup_close int place = below(fs, name), tree = -1;
	if (place < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot open /proc/%s", name);
	tree = mount_clone(place, "", false);
	if (tree < 0 || mount_change(tree, NO_EXEC | MOUNT_ATTR_RDONLY, -1, false) < 0)
		return cai_fail_errno(err, errno, "cannot make /proc/%s read-only", name);
	return mount_attach(tree, place, err);
}

static void set_sysctl(int proc, const char *path, const char *value)
{
	cleanup_close int fd = openat(proc, path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || file_write_full(fd, value, strlen(value)) < 0)
		return; /* an older kernel: low ports and ping then need a privilege */
}

int system_proc(struct child *c, struct cai_error *err)
{
	cleanup_close int place = inroot_own_dir(c->root_fd, "proc", err), empty = -1;
	struct statfs fs;
	if (place < 0)
		return -1;
	c->proc_fd = mount_new("proc", NULL, 0, NO_EXEC, err);
	if (c->proc_fd < 0)
		return err->errnum == EPERM && c->rootless
			       ? cai_fail(err, EPERM, "this user may not mount /proc: something on the host (a container around us?) covers parts of its own /proc")
			       : -1;
	if (fstatfs(c->proc_fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
		return cai_fail(err, EIO, "the new /proc is no procfs");
	if (mount_attach(c->proc_fd, place, err) < 0)
		return -1;
	/* The network namespace belongs to the host's root, not to the container's user namespace; as docker does, ports below 1024 and ping
	 * are open to everyone in it. Never in the caller's own. */
	if (!c->host_net) {
		set_sysctl(c->proc_fd, "sys/net/ipv4/ip_unprivileged_port_start", "0");
		set_sysctl(c->proc_fd, "sys/net/ipv4/ping_group_range", "0 2147483647");
	}
	for (unsigned i = 0; i < ARRAY_LEN(proc_readonly); i++)
		if (freeze(c->proc_fd, proc_readonly[i], err) < 0)
			return -1;
	return mask(c, c->proc_fd, proc_masked, ARRAY_LEN(proc_masked), &empty, err);
}

/* What a program asks to learn its own limits. */
static int mount_cgroups(struct child *c, int sys, struct cai_error *err)
{
	if (c->cgroup->layout != CGROUP_V2 || !c->cgroup->have)
		return 0;
	cleanup_close int place = below(sys, "fs/cgroup"), fd = -1;
	if (place < 0)
		return 0;
	fd = mount_new("cgroup2", NULL, 0, NO_EXEC | MOUNT_ATTR_RDONLY, err);
	return fd < 0 ? -1 : mount_attach(fd, place, err);
}

int system_sys(struct child *c, struct cai_error *err)
{
	cleanup_close int place = inroot_own_dir(c->root_fd, "sys", err), fd = -1, empty = -1;
	if (place < 0)
		return -1;
	fd = mount_new("sysfs", NULL, 0, NO_EXEC | MOUNT_ATTR_RDONLY, err);
	if (fd < 0)
		return err->errnum == EPERM && c->rootless ? 0 : -1; /* joined a network namespace that is not ours: there is no /sys then */
	if (mount_attach(fd, place, err) < 0 || mask(c, fd, sys_masked, ARRAY_LEN(sys_masked), &empty, err) < 0)
		return -1;
	return mount_cgroups(c, fd, err);
}

int system_files(struct child *c, struct cai_error *err)
{
	const struct container_spec *s = c->spec;
	if (s->resolv_conf && inroot_write(c->root_fd, "/etc", "resolv.conf", s->resolv_conf, err) < 0)
		return -1;
	if (s->hosts && inroot_write(c->root_fd, "/etc", "hosts", s->hosts, err) < 0)
		return -1;
	if (s->hostname) {
		char line[80];
		snprintf(line, sizeof(line), "%s\n", s->hostname);
		if (inroot_write(c->root_fd, "/etc", "hostname", line, err) < 0)
			return -1;
	}
	return 0;
}
