/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A machine that is about to be saved as a template runs here, once, what every copy of it is going to do: SETUP's own work and a first program. Then
 * the copies find the files in the page cache, the names in the dentry cache, and the software CPU has decoded the kernel's and the
 * programs' code.
 *
 * What it runs must leave nothing else. So it runs in a world of its own: new mount, PID, network, IPC and host name namespaces, whose
 * first process is a child of ours, so that the kernel ends all of its processes together and its mounts with them. It gets /proc, /dev/pts, /dev/shm and
 * /dev/mqueue of its own; of /dev, /sys and the cgroups a view that cannot be written to. The root is one of
 *
 *   - an overlay with an upper layer that goes away with the world: here programs can do what they like;
 *   - the root that the copies will have (--overlay), read-only: for the names in it, which belong to this one overlay.
 *
 * A program is started as START starts one, by the same functions.
 */
#include "guest/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/etc.h"
#include "guest/kernel_abi.h"
#include "guest/netif.h"
#include "guest/rootfs.h"
#include "guest/spawn.h"

#define POLL_MS 5

int prepare_parse(char *const *argv, struct prepare *p, struct cai_error *err)
{
	*p = (struct prepare){0};
	if (!argv[1] || !argv[2])
		return cai_fail(err, EINVAL, "prepare needs a disk and the type of its file system");
	p->dev = argv[1];
	p->fstype = argv[2];
	int i = 3;
	if (argv[i] && !strcmp(argv[i], "--overlay")) {
		p->overlay = true;
		i++;
	}
	if (argv[i] && !strcmp(argv[i], "--") && argv[i + 1]) {
		p->command = argv + i + 1;
		return 0;
	}
	return argv[i] ? cai_fail(err, EINVAL, "prepare does not know %.64s", argv[i]) : 0;
}

/* Moves what is in a pipe. False at its end. */
static bool forward(int from, int to)
{
	char chunk[4096];
	ssize_t n = from < 0 ? 0 : read(from, chunk, sizeof(chunk));
	if (n > 0 && to >= 0)
		file_write_full(to, chunk, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Runs a program to its end, as far as its own process goes. Its wait status, or -1: it does not exist, or *err says why not. */
static int run(char *const *argv, bool show, struct cai_error *err)
{
	struct spawned s;
	struct spawn_report why;
	int status = -1, *fds[] = {&s.out, &s.err};
	struct agent_start m = {.argv = (char **)(uintptr_t)argv, .env = environ};

	if (spawn_process(&m, SPAWN_APART, &s, err) < 0)
		return -1;
	for (bool ended = false; !ended;) {
		struct pollfd p[] = {{.fd = s.out, .events = POLLIN}, {.fd = s.err, .events = POLLIN}};
		poll(p, 2, POLL_MS);
		ended = waitpid(s.pid, &status, WNOHANG) == s.pid;
		for (int i = 0; i < 2; i++)
			if (!forward(*fds[i], show ? STDOUT_FILENO + i : -1) && *fds[i] >= 0)
				close(steal_fd(fds[i]));
	}
	if (read(s.report, &why, sizeof(why)) == (ssize_t)sizeof(why)) {
		why.text[sizeof(why.text) - 1] = 0;
		cai_fail(err, why.errnum, "%s", why.text);
		status = -1;
	}
	spawned_close(&s);
	return status;
}

static int own_mount(const char *type, const char *where, unsigned long flags, const char *options, struct cai_error *err)
{
	return mount(type, where, type, flags, options) < 0 && errno != ENOENT ? cai_fail_errno(err, errno, "cannot mount %s", where) : 0;
}

static int make_world(bool prepared, struct cai_error *err)
{
	static const char *const shared[] = {"/dev", "/sys/fs/cgroup", "/sys"};
	const unsigned long plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot make the mounts private");
	if (own_mount("proc", "/proc", plain, NULL, err) < 0 || own_mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", err) < 0 ||
	    own_mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", err) < 0 || own_mount("mqueue", "/dev/mqueue", plain, NULL, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(shared); i++)
		if (mount(NULL, shared[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | (i ? MS_NODEV | MS_NOEXEC : 0), NULL) < 0 && i == 0)
			return cai_fail_errno(err, errno, "cannot make %s read-only", shared[i]);
	if (rootfs_scratch(prepared, err) < 0)
		return -1;
	return rootfs_enter(prepared, err);
}

/* SETUP's work that is done in every copy. Whether it succeeds is of no interest. */
static void rehearse(void)
{
	struct agent_setup m = {.hostname = (char[]){"template"}, .hosts = (char[]){"127.0.0.1 localhost\n"}, .resolv_conf = (char[]){"\n"}};
	struct etc etc = ETC_INIT;
	struct cai_error err;
	sethostname(m.hostname, strlen(m.hostname));
	etc_prepare(&etc, "/etc");
	etc_write(&etc, &m, &err);
	netif_rehearse();
}

/* In the world's first process. Returns its exit status. */
static int live(const struct prepare *p, bool prepared)
{
	static char true_[] = "/bin/true", sh[] = "/bin/sh", dash_c[] = "-c", colon[] = ":";
	char *const usual[][4] = {{true_, NULL}, {sh, dash_c, colon, NULL}};
	struct cai_error err = {.text = ""};
	int status = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (make_world(prepared, &err) < 0) {
		dprintf(STDERR_FILENO, "%s\n", err.text);
		return 1;
	}
	if (!prepared)
		rehearse();
	if (p->command) {
		status = run(p->command, !prepared, &err);
		if (status < 0 && !prepared)
			dprintf(STDERR_FILENO, "%s\n", err.text);
		else if (status > 0 && !prepared)
			dprintf(STDERR_FILENO, "the warm-up ended with %s%d\n", WIFSIGNALED(status) ? "signal " : "",
				WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	for (size_t i = 0; i < ARRAY_LEN(usual); i++)
		run(usual[i], false, NULL);
	return status && !prepared ? 1 : 0;
}

static int in_a_world(const struct prepare *p, bool prepared, struct cai_error *err)
{
	const unsigned flags = GUEST_CLONE_NEWNS | GUEST_CLONE_NEWPID | GUEST_CLONE_NEWNET | GUEST_CLONE_NEWIPC | GUEST_CLONE_NEWUTS;
	int status;
	pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot make namespaces for a warm-up");
	if (pid == 0)
		_exit(live(p, prepared));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return cai_fail_errno(err, errno, "cannot wait for the warm-up");
	/* It has said why. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : cai_fail(err, 0, "the warm-up failed");
}

int prepare_warm_up(char *const *argv, struct cai_error *err)
{
	struct prepare p;
	if (prepare_parse(argv, &p, err) < 0 || in_a_world(&p, false, err) < 0)
		return -1;
	return p.overlay ? in_a_world(&p, true, err) : 0;
}
