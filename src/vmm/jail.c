/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * One path serves root and ordinary users. Root first becomes a user of its own (JAIL_UID_BASE + pid, a range that nobody
 * assigns), keeping its capabilities just long enough for the next step; from then on it is an ordinary user like any
 * other. A single unshare() then makes the user namespace and, owned by it, all others, so no capability over anything of
 * the host's is left at that moment, not even in a variable someone forgot. Within, the root becomes an empty read-only
 * tmpfs, and what capabilities the new namespace gave are dropped for good: bounding set, securebits, no_new_privs.
 *
 * A pid namespace takes effect on children only, so the monitor proper is a fork. The first process stays as its parent
 * because whoever started it waits for it; it has gone through the same jail, holds no descriptor but the pipe that tells the
 * child of its death, and ends the way the child ends. The parent-death signal is set after the last change of
 * credentials, which clears it; the pipe closes the window before.
 */
#include "vmm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "proto/control.h"
#include "seccomp_filter.h"

#define NOBODY 65534u

static const struct {
	int flag;
	const char *name;
} namespaces[] = {
	{CLONE_NEWUSER, "user"}, {CLONE_NEWPID, "pid"}, {CLONE_NEWNS, "mount"},   {CLONE_NEWNET, "network"},
	{CLONE_NEWIPC, "ipc"},   {CLONE_NEWUTS, "uts"}, {CLONE_NEWCGROUP, "cgroup"},
};

/* Sets the effective set to what is permitted (all = true), or empties every set. */
static int set_caps(bool all)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	if (all) {
		if (syscall(SYS_capget, &h, d) < 0)
			return -1;
		d[0].effective = d[0].permitted;
		d[1].effective = d[1].permitted;
	}
	return (int)syscall(SYS_capset, &h, d);
}

/* Descriptors 0 to 2 become harmless, all above the control socket go. */
static int settle_fds(bool keep_stderr, struct cai_error *err)
{
	if (close_range(CONTROL_FD + 1, ~0u, 0) < 0)
		return cai_fail_errno(err, errno, "cannot close inherited descriptors");
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/null");
	for (int fd = 0; fd <= 2; fd++)
		if (!(fd == 2 && keep_stderr && fcntl(2, F_GETFD) >= 0) && dup2(null, fd) < 0)
			return cai_fail_errno(err, errno, "cannot put /dev/null in place of descriptor %d", fd);
	if (null > 2)
		close(null);
	return 0;
}

/* Root only: leave root's identity, keep its capabilities for the coming unshare(). Where a container around us does not
 * map the uid, take nobody's; where there is no CAP_SETUID, stay. */
static void take_own_uid(struct jail_status *st)
{
	st->uid = geteuid();
	if (st->uid != 0)
		return;
	uid_t ids[] = {JAIL_UID_BASE + (uid_t)getpid(), NOBODY};
	if (setgroups(0, NULL) < 0 || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(ids) && !st->own_uid; i++) {
		if (setresgid(ids[i], ids[i], ids[i]) < 0 || setresuid(ids[i], ids[i], ids[i]) < 0)
			continue;
		st->uid = ids[i];
		st->own_uid = true;
	}
	set_caps(true);
	/* The change of user made /proc/self root's; the id maps are written through it. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int refuse(struct cai_error *err, int e, const char *what)
{
	if (e == ENOSPC)
		return cai_fail(err, e, "the host's limit on %s namespaces is reached or is 0 (sysctl user.max_%s_namespaces)", what,
				strcmp(what, "mount") == 0 ? "mnt" : strcmp(what, "network") == 0 ? "net" : what);
	if (e == EINVAL)
		return cai_fail(err, e, "the host's kernel has no %s namespaces, which the monitor's jail needs", what);
	return cai_fail(err, e,
			"the host does not let this user make a %s namespace, which the monitor's jail needs: run as root, or allow it "
			"(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
			what);
}

static int make_namespaces(struct jail_status *st, struct cai_error *err)
{
	int all = 0;
	for (unsigned i = 0; i < ARRAY_LEN(namespaces); i++)
		all |= namespaces[i].flag;
	if (unshare(all) == 0) {
		st->user_ns = true;
		return 0;
	}
	/* Root of a host without user namespaces can do without; everyone else learns which one was refused. */
	if (unshare(all & ~CLONE_NEWUSER) == 0)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(namespaces); i++)
		if (unshare(namespaces[i].flag) < 0)
			return refuse(err, errno, namespaces[i].name);
	st->user_ns = true;
	return 0;
}

static int write_proc(const char *path, const char *text, struct cai_error *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || file_write_full(fd, text, strlen(text)) < 0)
		return cai_fail_errno(err, errno, "cannot write %s", path);
	return 0;
}

/* Inside, the monitor is nobody; outside, who it was. */
static int map_ids(uid_t uid, gid_t gid, struct cai_error *err)
{
	char text[64];
	if (write_proc("/proc/self/setgroups", "deny", err) < 0)
		return -1;
	snprintf(text, sizeof(text), "%u %u 1", NOBODY, (unsigned)uid);
	if (write_proc("/proc/self/uid_map", text, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "%u %u 1", NOBODY, (unsigned)gid);
	return write_proc("/proc/self/gid_map", text, err);
}

/* An empty tmpfs, mounted where every host has a directory, becomes the root; the host's tree is let go. */
static int empty_root(struct cai_error *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		if (errno == EINVAL)
			return cai_fail(err, errno, "the root directory is no mount point, as in a chroot, so it cannot be exchanged for the jail's "
					"empty one: bind-mount that directory onto itself before entering it, or use a mount namespace");
		return cai_fail_errno(err, errno, "cannot make the jail's mounts private");
	}
	if (mount("jail", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0500,size=4k,nr_inodes=2") < 0)
		return cai_fail_errno(err, errno, "cannot mount the jail's empty root");
	if (chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return cai_fail_errno(err, errno, "cannot enter the jail's empty root");
	return 0;
}

static int drop_privileges(struct cai_error *err)
{
	prctl(PR_SET_SECUREBITS,
	      SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
		      SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
	      0, 0, 0);
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && geteuid() == 0)
			return cai_fail_errno(err, errno, "cannot drop capability %d from the bounding set", cap);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (set_caps(false) < 0)
		return cai_fail_errno(err, errno, "cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set no_new_privs");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot forbid being traced");
	return 0;
}

/* The first process from here on. It must not outlive what it stands for, nor be the reason that a control socket stays
 * open. */
static void __attribute__((noreturn)) mirror(pid_t child, int alive_fd)
{
	if (alive_fd > 0)
		close_range(0, (unsigned)alive_fd - 1, 0);
	close_range((unsigned)alive_fd + 1, ~0u, 0);
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
		_exit(128 + WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

static int fork_monitor(struct cai_error *err)
{
	int alive[2];
	if (pipe2(alive, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	pid_t pid = fork();
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot start the monitor's process");
	if (pid > 0)
		mirror(pid, alive[1]);
	close(alive[1]);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot tie the monitor to its parent");
	struct pollfd p = {.fd = alive[0]};
	if (poll(&p, 1, 0) != 0)
		_exit(1); /* the parent is gone already: nobody is left to tell */
	close(alive[0]);
	setsid();
	return 0;
}

int jail_enter(struct jail_status *st, bool keep_stderr, struct cai_error *err)
{
	*st = (struct jail_status){0};
	/* Away from the terminal, whose Ctrl-C is for the guest and comes by another way. */
	setsid();
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ};
	for (unsigned i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);

	if (settle_fds(keep_stderr, err) < 0)
		return -1;
	take_own_uid(st);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (make_namespaces(st, err) < 0)
		return -1;
	if (st->user_ns && map_ids(uid, gid, err) < 0)
		return cai_wrap(err, "cannot set up the jail's user namespace");
	if (empty_root(err) < 0 || drop_privileges(err) < 0)
		return -1;
	return fork_monitor(err);
}

/* Lowers a limit; never tries to raise one. */
static void lower(int resource, rlim_t to)
{
	struct rlimit r;
	if (getrlimit(resource, &r) < 0)
		return;
	if (r.rlim_max == RLIM_INFINITY || r.rlim_max > to)
		r.rlim_max = to;
	r.rlim_cur = r.rlim_max;
	setrlimit(resource, &r);
}

int jail_seal(struct jail_status *st, uint64_t fsize, bool kvm, struct cai_error *err)
{
	lower(RLIMIT_NOFILE, JAIL_MAX_FDS);
	lower(RLIMIT_FSIZE, fsize);
	lower(RLIMIT_MEMLOCK, 0);
	lower(RLIMIT_MSGQUEUE, 0);
	/* Since Linux 6.13 the first KVM_RUN makes a worker thread that counts as ours, and fails for ever with EAGAIN where none
	 * is allowed. The filter forbids clone() anyway. */
	if (!kvm)
		lower(RLIMIT_NPROC, 0);
	struct sock_fprog prog = {.len = ARRAY_LEN(jail_filter), .filter = (struct sock_filter *)(uintptr_t)jail_filter};
	long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
	if (r > 0)
		return cai_fail(err, 0, "thread %ld cannot take the monitor's system call filter", r);
	if (r < 0 && errno == EINVAL)
		return cai_fail(err, errno, "the host's kernel has no seccomp filters, which the monitor's jail needs");
	if (r < 0)
		return cai_fail_errno(err, errno, "cannot install the monitor's system call filter");
	st->sealed = true;
	return 0;
}

const char *jail_syscall_name(int nr)
{
	return nr >= 0 && (size_t)nr < ARRAY_LEN(jail_syscall_names) ? jail_syscall_names[nr] : NULL;
}

int jail_probe(const char *name, struct cai_error *err)
{
	static char *const argv[] = {(char *)"sh", NULL};
	if (!strcmp(name, "open"))
		syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY);
	else if (!strcmp(name, "socket"))
		syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
	else if (!strcmp(name, "execve"))
		syscall(SYS_execve, "/bin/sh", argv, argv + 1);
	else if (!strcmp(name, "ptrace"))
		syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
	else if (!strcmp(name, "fork"))
		syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	else if (!strcmp(name, "mmap-exec"))
		syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else if (!strcmp(name, "mprotect-exec"))
		syscall(SYS_mprotect, NULL, 4096, PROT_EXEC);
	else if (!strcmp(name, "ioctl"))
		syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
	else if (!strcmp(name, "kill"))
		syscall(SYS_kill, -1, SIGKILL);
	else
		return cai_fail(err, EINVAL, "there is no jail probe \"%s\"", name);
	return cai_fail(err, 0, "the jail let the probe \"%s\" pass", name);
}
