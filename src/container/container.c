/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's side: starting, watching, ending.
 *
 * Theory of operation: what needs the host is made here, before the child exists (the control group, the user namespace, a form of the agent
 * that cannot be written through); the child does the rest by itself (child.c), in one go, with no step at which the two have to meet, except
 * without root, where only the parent may write the child's id maps. A pipe that closes when the agent is executed tells of success;
 * a report in it tells of failure.
 */
#include "container/container.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

#define KILL_WAIT_MS 5000

/* A copy in memory that nobody can change: for callers who may not make mounts. */
static int seal_agent(int agent_fd, struct cai_error *err)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", agent_fd);
	cleanup_close int in = open(path, O_RDONLY | O_CLOEXEC); /* it may have come as O_PATH */
	struct stat st;
	if (in < 0 || fstat(in, &st) < 0)
		return cai_fail_errno(err, errno, "cannot read the agent's program");
	cleanup_close int fd = memfd_create("caisson-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("caisson-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot copy the agent's program");
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(fd, in, NULL, (size_t)left);
		if (n <= 0)
			return cai_fail_errno(err, n ? errno : EIO, "cannot copy the agent's program");
		left -= n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return cai_fail_errno(err, errno, "cannot seal the agent's program");
	return steal_fd(&fd);
}

/* The agent's file as a read-only mount of that one file, attached nowhere: shared with all containers through the page cache, and
 * whatever opens /proc/1/exe for writing is refused by the mount. */
static int unwritable_agent(int agent_fd, struct cai_error *err)
{
	cleanup_close int fd = mount_clone(agent_fd, "", false);
	if (fd >= 0 && mount_change(fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, -1, false) == 0)
		return steal_fd(&fd);
	return seal_agent(agent_fd, err);
}

static int check_spec(const struct container_spec *s, struct cai_error *err)
{
	if ((s->image_fd < 0) == !s->rootfs_dir)
		return cai_fail(err, EINVAL, "a container's root is either an image file or a directory");
	if ((s->rootfs_dir && s->rootfs_dir[0] != '/') || (s->upper_dir && s->upper_dir[0] != '/'))
		return cai_fail(err, EINVAL, "the directories of a container's root must have absolute paths");
	if (s->n_mounts > CONTAINER_MAX_MOUNTS)
		return cai_fail(err, EINVAL, "a container can have at most %d mounts", CONTAINER_MAX_MOUNTS);
	if (s->hostname && (strlen(s->hostname) > 64 || strpbrk(s->hostname, "\n/")))
		return cai_fail(err, EINVAL, "\"%.80s\" is no host name", s->hostname);
	for (unsigned i = 0; i < s->n_mounts; i++) {
		const struct container_mount *m = &s->mounts[i];
		if (!m->target || m->target[0] != '/')
			return cai_fail(err, EINVAL, "a mount's place in the container must be an absolute path, not \"%.100s\"", m->target ? m->target : "");
		if (m->kind == CONTAINER_BIND && (!m->source || m->source[0] != '/'))
			return cai_fail(err, EINVAL, "what is mounted must be given by an absolute path, not \"%.100s\"", m->source ? m->source : "");
	}
	return 0;
}

static uint64_t start_time_of(pid_t pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : file_read_full(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = 0;
	/* Behind the name, which may hold anything: field 3 onwards. */
	char *p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* Reads reports until the pipe closes: an agent that runs has sent one that is not of failure. */
static int await_agent(int fd, struct child_report *r)
{
	struct child_report next;
	int got = 0;
	while (file_read_full(fd, &next, sizeof(next)) == (ssize_t)sizeof(next)) {
		*r = next;
		got = 1;
	}
	return got;
}

static void reap(struct container *out)
{
	siginfo_t info;
	if (out->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, out->pidfd, SIGKILL, NULL, 0);
		while (waitid((idtype_t)P_PIDFD, (id_t)out->pidfd, &info, WEXITED | __WALL) < 0 && errno == EINTR)
			;
		close(out->pidfd);
	}
	out->pidfd = -1;
	out->pid = 0;
}

static pid_t make_child(struct child *c, struct container *out, struct cai_error *err)
{
	cleanup_close int group = cgroup_clone_fd(&out->cgroup);
	uint64_t flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD;
	if (c->spec->netns_fd < 0)
		flags |= CLONE_NEWNET;
	if (c->rootless)
		flags |= CLONE_NEWUSER;
	if (group >= 0)
		flags |= CLONE_INTO_CGROUP;
	c->enter_cgroup = group < 0 && out->cgroup.have;
	int pidfd = -1;
	struct clone_args a = {.flags = flags, .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = group >= 0 ? (uint64_t)group : 0};
	pid_t pid = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
	if (pid < 0)
		return errno == ENOSYS ? cai_fail(err, errno, "the host's kernel is older than 5.12, which the container engine needs")
		       : errno == EPERM ? cai_fail(err, errno, "the host does not let this user make a container's namespaces: run as root, or allow user namespaces "
							       "(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)")
		       : errno == ENOSPC ? cai_fail(err, errno, "the host's limit on namespaces is reached (sysctl user.max_*_namespaces)")
					 : cai_fail_errno(err, errno, "cannot make a container's namespaces");
	if (pid > 0)
		out->pidfd = pidfd;
	return pid;
}

static bool is_own_netns(int fd)
{
	struct stat mine, given;
	return fd >= 0 && (stat("/proc/self/ns/net", &mine) < 0 || fstat(fd, &given) < 0 || (mine.st_dev == given.st_dev && mine.st_ino == given.st_ino));
}

/* One attempt; *no_idmap tells that another one without a user namespace may succeed. */
static int start_once(const struct container_spec *s, bool userns, struct container *out, bool *no_idmap, struct cai_error *err)
{
	struct child c = {.spec = s, .cgroup = &out->cgroup, .rootless = geteuid() != 0, .host_net = is_own_netns(s->netns_fd), .userns_fd = -1, .agent_fd = -1, .report_fd = -1,
			  .root_fd = -1, .dev_fd = -1, .proc_fd = -1, .null_tree = -1};
	for (unsigned i = 0; i < CONTAINER_MAX_MOUNTS; i++)
		c.sources[i] = -1;
	int pipes[2], go[2] = {-1, -1};
	cleanup_close int agent = unwritable_agent(s->agent_fd, err), ns = -1;
	*no_idmap = false;
	if (agent < 0)
		return -1;
	if (userns && !c.rootless) {
		c.uid_base = userns_base(s->id);
		ns = userns_make(c.uid_base, err);
		if (ns < 0) {
			*no_idmap = true;
			return -1;
		}
	}
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int reports = pipes[0], report = pipes[1];
	if (c.rootless && pipe2(go, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int go_read = go[0], go_write = go[1];
	c.agent_fd = agent;
	c.userns_fd = ns;
	c.report_fd = report;
	pid_t pid = make_child(&c, out, err);
	if (pid < 0)
		return -1;
	if (pid == 0) {
		char byte;
		close(reports);
		close(go_write);
		/* The caller's death closes the pipe as well, which is no permission. */
		if (c.rootless && read(go_read, &byte, 1) != 1)
			_exit(1);
		container_child(&c);
	}
	out->pid = pid;
	close(report);
	report = -1;
	char note[200] = "";
	if (c.rootless && (userns_map_rootless(pid, note, sizeof(note), err) < 0 || write(go_write, "", 1) != 1)) {
		reap(out);
		return -1;
	}
	struct child_report r = {.failed = true};
	if (!await_agent(reports, &r) || r.failed) {
		if (*r.err.text)
			*err = r.err;
		else
			cai_fail(err, 0, "the container's first process died before it could start the agent (out of memory within its limit, or killed)");
		err->text[sizeof(err->text) - 1] = 0;
		*no_idmap = r.no_idmap;
		reap(out);
		return -1;
	}
	out->start_time = start_time_of(pid);
	out->userns = userns || c.rootless;
	out->uid_base = c.rootless ? geteuid() : c.uid_base;
	out->landlock = r.landlock;
	out->seccomp = r.seccomp;
	if (*note)
		snprintf(out->note + strlen(out->note), sizeof(out->note) - strlen(out->note), "%s%s", *out->note ? "; " : "", note);
	return 0;
}

int container_start(const struct container_spec *spec, struct container *out, struct cai_error *err)
{
	*out = (struct container){.pidfd = -1};
	if (check_spec(spec, err) < 0)
		return -1;
	struct cai_error why = {.text = ""};
	if (cgroup_create(&out->cgroup, spec->id, &spec->limits, &why) < 0) {
		bool asked = spec->limits.memory || spec->limits.cpus > 0 || spec->limits.pids;
		if (asked) {
			if (err)
				*err = why;
			return -1;
		}
		/* No group, none asked for: the container runs without, and says so. */
		snprintf(out->note, sizeof(out->note), "%.190s", why.text);
	}
	if (!out->cgroup.have && !*out->note)
		cgroup_missing(out->note, sizeof(out->note));
	snprintf(out->id, sizeof(out->id), "%s", spec->id);
	bool no_idmap, userns = spec->userns != CONTAINER_USERNS_NEVER;
	int r = start_once(spec, userns, out, &no_idmap, &why);
	if (r < 0 && no_idmap && spec->userns == CONTAINER_USERNS_AUTO && geteuid() == 0) {
		snprintf(out->note + strlen(out->note), sizeof(out->note) - strlen(out->note), "%sno user namespace: %s", *out->note ? "; " : "", why.text);
		r = start_once(spec, false, out, &no_idmap, &why);
	}
	if (r < 0) {
		if (err)
			*err = why;
		cgroup_destroy(&out->cgroup, NULL);
		*out = (struct container){.pidfd = -1};
		return -1;
	}
	return 0;
}

int container_kill(const struct container *c, int sig, struct cai_error *err)
{
	if (syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) < 0 && errno != ESRCH)
		return cai_fail_errno(err, errno, "cannot signal the container %s", c->id);
	return 0;
}

int container_freeze(const struct container *c, struct cai_error *err)
{
	return cgroup_freeze(&c->cgroup, true, err);
}

int container_thaw(const struct container *c, struct cai_error *err)
{
	return cgroup_freeze(&c->cgroup, false, err);
}

int container_stats(const struct container *c, struct cgroup_stats *out, struct cai_error *err)
{
	return cgroup_stat(&c->cgroup, out, err);
}

int container_update(const struct container *c, const struct cgroup_limits *limits, struct cai_error *err)
{
	return cgroup_update(&c->cgroup, limits, err);
}

int container_wait(struct container *c, int timeout_ms, int *status, struct cai_error *err)
{
	struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
	siginfo_t info = {.si_pid = 0};
	int r;
	while ((r = poll(&p, 1, timeout_ms)) < 0 && errno == EINTR)
		;
	if (r == 0)
		return 0;
	if (r < 0 || waitid((idtype_t)P_PIDFD, (id_t)c->pidfd, &info, WEXITED | __WALL) < 0)
		return cai_fail_errno(err, errno, "cannot wait for the container %s", c->id);
	if (status)
		*status = info.si_code == CLD_EXITED ? (info.si_status & 255) << 8 : info.si_status & 127;
	close(c->pidfd);
	c->pidfd = -1;
	c->pid = 0;
	return 1;
}

int container_destroy(struct container *c, struct cai_error *err)
{
	int r = 0;
	if (c->pid > 0 && c->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
		/* A frozen process of cgroup v1 dies when it is thawed. */
		struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
		if (poll(&p, 1, 100) == 0)
			cgroup_kill(&c->cgroup, NULL);
		if (poll(&p, 1, KILL_WAIT_MS) == 0)
			r = cai_fail(err, EBUSY, "the container %s does not end: a process in it hangs in the kernel", c->id);
		else
			reap(c);
	}
	if (cgroup_destroy(&c->cgroup, r < 0 ? NULL : err) < 0)
		r = -1;
	return r;
}

int container_heal(const char *id, pid_t pid, uint64_t start_time, struct cai_error *err)
{
	if (pid > 0 && start_time) {
		cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);
		/* The descriptor pins the process; then its birth tells whether it is the one that was recorded. */
		if (fd >= 0 && start_time_of(pid) == start_time)
			syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	}
	struct cgroup cg;
	if (cgroup_open(&cg, id, err) < 0)
		return -1;
	return cgroup_destroy(&cg, err);
}
