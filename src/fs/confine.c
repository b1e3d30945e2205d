/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * One path serves root and ordinary users. A user namespace comes first: root's maps every id to itself, so files keep their
 * owners, but its capabilities count for nothing outside; an ordinary user's maps that user to root, so the guest's root owns what
 * the user owns, as with rootless containers. A process that has left the host's user namespace can no longer write a map of
 * many ids, so a child that has stayed behind does it.
 *
 * The directory is reached through the working directory, which a new mount namespace takes along, while a descriptor would
 * still lead to the host's. A copy of its mount tree, set-id bits, devices, programs and symbolic links switched off, becomes the
 * root by pivot_root; everything else is let go.
 *
 * /proc/self/fd is needed, since some system calls take no descriptor of a file that was not opened for real. It is mounted alone,
 * attached to nothing: ".." leads nowhere from there.
 */
#include "fs/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "fs_seccomp.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

/* What owning and changing files of others takes. FSETID is raised only for chmod(2), see fs/server.c. */
static const int kept_caps[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_SETUID, CAP_SETGID};

/* Makes a map of everything this process's namespace has, each id to itself, from what /proc shows of our own. */
static int identity_map(const char *kind, char *out, size_t size)
{
	char path[64];
	cleanup_free char *text = NULL;
	size_t len, at = 0;
	snprintf(path, sizeof(path), "/proc/self/%s_map", kind);
	if (file_read_all(path, 4096, &text, &len, NULL) < 0)
		return -1;
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned inside, outside, count;
		if (sscanf(line, "%u %u %u", &inside, &outside, &count) != 3 || at >= size)
			return -1;
		at += (size_t)snprintf(out + at, size - at, "%u %u %u\n", inside, inside, count);
	}
	return at && at < size ? 0 : -1;
}

static int write_map(pid_t pid, const char *kind, const char *text)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, kind);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n = (ssize_t)strlen(text);
	return fd < 0 || write(fd, text, (size_t)n) != n ? -1 : 0;
}

/* The child that stays behind: waits until the parent has a new namespace, then gives it all ids. */
static void __attribute__((noreturn)) map_for_parent(int go, pid_t parent)
{
	char uids[1024], gids[1024], c;
	if (identity_map("uid", uids, sizeof(uids)) < 0 || identity_map("gid", gids, sizeof(gids)) < 0 || read(go, &c, 1) != 1)
		_exit(1);
	_exit(write_map(parent, "gid_map", gids) < 0 || write_map(parent, "uid_map", uids) < 0);
}

static int map_one(uid_t uid, gid_t gid, struct cai_error *err)
{
	char u[64], g[64];
	snprintf(u, sizeof(u), "0 %u 1", (unsigned)uid);
	snprintf(g, sizeof(g), "0 %u 1", (unsigned)gid);
	if (write_map(getpid(), "setgroups", "deny") < 0 || write_map(getpid(), "uid_map", u) < 0 || write_map(getpid(), "gid_map", g) < 0)
		return cai_fail_errno(err, errno, "cannot set up the user namespace of a shared directory");
	return 0;
}

static int make_namespaces(struct confinement *c, struct cai_error *err)
{
	const int rest = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	cleanup_close int go = -1;
	pid_t helper = -1;
	c->all_ids = uid == 0;
	if (c->all_ids) {
		int p[2];
		if (setgroups(0, NULL) < 0 && errno != EPERM)
			return cai_fail_errno(err, errno, "cannot drop supplementary groups");
		if (pipe2(p, O_CLOEXEC) < 0)
			return cai_fail_errno(err, errno, "cannot make a pipe");
		pid_t self = getpid();
		helper = fork();
		if (helper == 0) {
			close(p[1]);
			map_for_parent(p[0], self);
		}
		close(p[0]);
		go = p[1];
	}
	if (unshare(CLONE_NEWUSER | rest) == 0) {
		c->user_ns = true;
	} else if (!c->all_ids || unshare(rest) < 0) {
		return cai_fail_errno(err, errno, "the host does not let this user make the namespaces that a shared directory is confined to");
	}
	if (!c->all_ids)
		return map_one(uid, gid, err);
	/* Root of a host without user namespaces does without. */
	bool mapped = c->user_ns && write(go, "x", 1) == 1;
	close(steal_fd(&go));
	int status = -1;
	while (helper > 0 && waitpid(helper, &status, 0) < 0 && errno == EINTR)
		;
	if (c->user_ns && (!mapped || status != 0))
		return cai_fail(err, EPERM, "cannot map the host's users into the namespace of a shared directory");
	/* Having no id of its own for a moment, the process has lost nothing: it is root in its namespace now. */
	if (c->user_ns && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
		return cai_fail_errno(err, errno, "cannot become the root of a shared directory's namespace");
	return 0;
}

/* Forbids on all mounts of the tree what a shared directory is not for. */
static int restrict_mounts(int tree, bool readonly)
{
	struct mount_attr a = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW |
					   (readonly ? MOUNT_ATTR_RDONLY : 0)};
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a)) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	a.attr_set &= ~(uint64_t)MOUNT_ATTR_NOSYMFOLLOW; /* Linux before 5.14 */
	return (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a));
}

static int new_root(struct confinement *c, bool readonly, struct cai_error *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot make mounts private");
	c->proc_fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (c->proc_fd < 0)
		return cai_fail_errno(err, errno, "cannot mount /proc/self/fd for a shared directory");
	cleanup_close int tree = (int)syscall(SYS_open_tree, AT_FDCWD, ".", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0)
		return cai_fail_errno(err, errno, "cannot mount a shared directory");
	if (restrict_mounts(tree, readonly) < 0)
		return cai_fail_errno(err, errno, "cannot restrict the mounts of a shared directory");
	/* Every host has /proc, and nobody here needs it any more. */
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(tree) < 0 ||
	    syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
		return cai_fail_errno(err, errno, "cannot make a shared directory the root of its server");
	c->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (c->root_fd < 0)
		return cai_fail_errno(err, errno, "cannot open the root of a shared directory");
	return 0;
}

int confine_enter(struct confinement *c, int dir_fd, bool readonly, struct cai_error *err)
{
	*c = (struct confinement){.root_fd = -1, .proc_fd = -1};
	if (fchdir(dir_fd) < 0)
		return cai_fail_errno(err, errno, "cannot enter the directory to be shared");
	close(dir_fd);
	if (make_namespaces(c, err) < 0)
		return -1;
	return new_root(c, readonly, err);
}

static bool is_kept(int cap)
{
	for (unsigned i = 0; i < ARRAY_LEN(kept_caps); i++)
		if (kept_caps[i] == cap)
			return true;
	return false;
}

static int keep_caps(struct cai_error *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	/* The file-creating user changes without capabilities coming and going. */
	if (prctl(PR_SET_SECUREBITS,
		  SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
			  SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
		  0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set securebits");
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!is_kept(cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return cai_fail_errno(err, errno, "cannot drop capability %d from the bounding set", cap);
	if (syscall(SYS_capget, &h, d) < 0)
		return cai_fail_errno(err, errno, "cannot read capabilities");
	for (unsigned i = 0; i < ARRAY_LEN(kept_caps); i++)
		d[0].inheritable |= 1u << kept_caps[i];
	d[0].permitted &= d[0].inheritable;
	d[0].effective = d[0].permitted & ~(1u << CAP_FSETID);
	d[1] = (struct __user_cap_data_struct){0};
	d[0].inheritable = 0;
	return syscall(SYS_capset, &h, d) < 0 ? cai_fail_errno(err, errno, "cannot drop capabilities") : 0;
}

/* A call that is not on the list: says which, and ends. */
static void on_sigsys(int sig, siginfo_t *si, void *ctx)
{
	int nr = si->si_syscall;
	const char *name = nr >= 0 && (size_t)nr < ARRAY_LEN(jail_syscall_names) ? jail_syscall_names[nr] : NULL;
	static const char head[] = "caisson-fs: its jail forbids the system call ";
	ssize_t r = write(2, head, sizeof(head) - 1);
	r = write(2, name ? name : "?", name ? strlen(name) : 1);
	r = write(2, "\n", 1);
	(void)r;
	_exit(3);
}

int confine_seal(const struct confinement *c, struct cai_error *err)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	sigaction(SIGSYS, &sa, NULL);
	if (keep_caps(err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot give up privileges");
	struct sock_fprog prog = {.len = ARRAY_LEN(jail_filter), .filter = (struct sock_filter *)(uintptr_t)jail_filter};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return cai_fail_errno(err, errno, "cannot install the system call filter of a shared directory's server");
	return 0;
}
