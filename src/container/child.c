/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child: from a copy of the caller to the agent in its container.
 *
 * Theory of operation: the order is the point. It joins its control group first, so that all it makes is charged to it. Sources of mounts are opened while
 * the host's tree is there; then the root is built, entered, and the host's tree is gone. Only then identity and privileges go, and the last call
 * of this program is the one that executes the agent. Whatever fails writes one report into the pipe and ends the process, and with
 * it every namespace and mount made so far.
 *
 * What the agent inherits: 0 to 2 on the container's own /dev/null, 3 the listening socket. All else is closed, not merely close-on-exec.
 * The agent's file is a descriptor through which nobody can write (container.c), so /proc/1/exe is of no use to an attacker.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/securebits.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"

static void __attribute__((noreturn)) give_up(struct child *c)
{
	c->report.failed = true;
	file_write_full(c->report_fd, &c->report, sizeof(c->report));
	_exit(1);
}

/* The kernel's leash, and the moment before it was put on: with nobody left to read the report, the caller is gone. */
static void tie_to_caller(struct child *c)
{
	struct pollfd p = {.fd = c->report_fd};
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || (poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP))))
		_exit(1);
}

/* Nothing of the caller's session, signals, terminal or keys. */
static void forget_caller(void)
{
	setsid();
	umask(022);
	for (int sig = 1; sig < 65; sig++)
		signal(sig, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL); /* a kernel without keys has none to hide */
}

static int loopback_up(struct cai_error *err)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		return cai_fail_errno(err, errno, "cannot bring up the container's loopback interface");
	return 0;
}

static int join_namespaces(struct child *c, struct cai_error *err)
{
	if (c->enter_cgroup && cgroup_enter_self(c->cgroup, err) < 0)
		return -1;
	/* After the group was entered, since a cgroup namespace begins where its maker is. */
	if (unshare(CLONE_NEWCGROUP) < 0)
		return cai_fail_errno(err, errno, "cannot make a cgroup namespace");
	if (c->spec->netns_fd >= 0 && setns(c->spec->netns_fd, CLONE_NEWNET) < 0)
		return cai_fail_errno(err, errno, "cannot join the container's network namespace");
	if (c->spec->netns_fd < 0 && loopback_up(err) < 0)
		return -1;
	const char *name = c->spec->hostname ? c->spec->hostname : c->spec->id;
	size_t n = c->spec->hostname ? strlen(name) : strnlen(name, 12);
	if (sethostname(name, n) < 0)
		return cai_fail_errno(err, errno, "cannot set the host name \"%.64s\"", name);
	return 0;
}

static int build_root(struct child *c, struct cai_error *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return errno == EINVAL ? cai_fail(err, errno, "the root directory is no mount point, as in a chroot, so a container cannot be started from here")
				       : cai_fail_errno(err, errno, "cannot make mounts private");
	if (volumes_open(c, err) < 0 || rootfs_make(c, err) < 0 || system_dev(c, err) < 0 || system_proc(c, err) < 0 || system_sys(c, err) < 0)
		return -1;
	if (volumes_attach(c, err) < 0 || system_files(c, err) < 0)
		return -1;
	return rootfs_enter(c, err);
}

/* 0 to 2: /dev/null; 3: the socket; 4: the agent; 5: the report's pipe; nothing else. */
static int settle_fds(struct child *c, struct cai_error *err)
{
	int null = openat(c->dev_fd, "null", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (null < 0)
		return cai_fail_errno(err, errno, "cannot open the container's /dev/null");
	int *keep[] = {&c->report_fd, &c->agent_fd, &c->userns_fd, &null};
	/* Out of the way of their places first. */
	for (unsigned i = 0; i < ARRAY_LEN(keep); i++)
		if (*keep[i] >= 0 && (*keep[i] = fcntl(*keep[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return cai_fail_errno(err, errno, "cannot arrange descriptors");
	if (dup2(c->spec->listen_fd, CONTAINER_AGENT_LISTEN_FD) < 0 || fcntl(CONTAINER_AGENT_LISTEN_FD, F_SETFD, 0) < 0)
		return cai_fail_errno(err, errno, "cannot pass the agent's socket on");
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			return cai_fail_errno(err, errno, "cannot put /dev/null in place of descriptor %d", fd);
	static const int places[] = {5, 4, 6};
	for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
		if (*keep[i] < 0)
			continue;
		if (dup3(*keep[i], places[i], O_CLOEXEC) < 0)
			return cai_fail_errno(err, errno, "cannot arrange descriptors");
		*keep[i] = places[i];
	}
	if (close_range(c->userns_fd >= 0 ? 7 : 6, ~0u, 0) < 0)
		return cai_fail_errno(err, errno, "cannot close the host's descriptors");
	return 0;
}

static int become_root_of_container(struct child *c, struct cai_error *err)
{
	if (c->userns_fd >= 0) {
		if (setns(c->userns_fd, CLONE_NEWUSER) < 0)
			return cai_fail_errno(err, errno, "cannot join the container's user namespace");
		close(c->userns_fd);
		c->userns_fd = -1;
	}
	/* Groups of the caller are none of the container's. Where only one id is mapped they cannot be dropped, and mean nobody's. */
	if (setgroups(0, NULL) < 0 && !(c->rootless && errno == EPERM))
		return cai_fail_errno(err, errno, "cannot drop supplementary groups");
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot become the container's root");
	return 0;
}

void container_child(struct child *c)
{
	static char *const argv[] = {(char *)"caisson-init", (char *)"--container", NULL};
	static char *const envp[] = {(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", (char *)"container=caisson", NULL};
	struct cai_error *err = &c->report.err;
	uint64_t caps;

	tie_to_caller(c);
	forget_caller();
	/* A change of fsuid is not to take capabilities. Joining the user namespace resets this. */
	if (c->uid_base && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0) {
		cai_fail_errno(err, errno, "cannot set securebits");
		give_up(c);
	}
	if (confine_capability_set(c->spec, &caps, err) < 0 || join_namespaces(c, err) < 0 || build_root(c, err) < 0)
		give_up(c);
	if (confine_limits(c, err) < 0 || settle_fds(c, err) < 0 || become_root_of_container(c, err) < 0 || confine_capabilities(caps, err) < 0 ||
	    confine_landlock(c, caps, err) < 0)
		give_up(c);
	tie_to_caller(c); /* changes of credentials have undone it */
	if (!c->spec->seccomp_unconfined) {
		if (confine_seccomp(caps, err) < 0)
			give_up(c);
		c->report.seccomp = true;
	}
	file_write_full(c->report_fd, &c->report, sizeof(c->report));
	syscall(SYS_execveat, c->agent_fd, "", argv, envp, AT_EMPTY_PATH);
	cai_fail_errno(err, errno, "cannot execute the agent in the container");
	give_up(c);
}
