/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A machine that is about to be saved as a template runs here, a few times, what every copy of it is going to do: SETUP and first programs. Then
 * the copies find the files in the page cache, the names in the dentry cache, and the software CPU has decoded the kernel's, the
 * agent's and the programs' code. So it is the agent itself that does it: a second one, with the same operations, over a socket pair.
 *
 * It must leave nothing else. So it lives in a world of its own: new mount, PID, network, IPC and host name namespaces, whose
 * first process is a child of ours, so that the kernel ends all of its processes together and its mounts with them. It gets /proc, /dev/pts, /dev/shm and
 * /dev/mqueue of its own; of /dev, /sys and the cgroups a view that cannot be written to; a network interface to set up. The clock is set to what it is.
 *
 * There are three rounds, each in a world of its own. The first has an upper layer that goes away with it, so that programs can do what they
 * like; what they open is noted and then read into the cache anew (recache.h). The second is the same, for the code in the pages where it is
 * now. The third, with --overlay or --upper, has the root that the copies will have, read-only: for the names in it, which belong to this one overlay.
 */
#include "guest/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/agent.h"
#include "guest/kernel_abi.h"
#include "guest/machine.h"
#include "guest/recache.h"

#define MAX_PROGRAMS 3

#define CHORE_NEAR_MS  450
#define CHORE_LASTS_MS 200

enum round { ROUND_FIRST, ROUND_AGAIN, ROUND_PREPARED };

int prepare_parse(char *const *argv, struct prepare *p, struct cai_error *err)
{
	*p = (struct prepare){0};
	if (!argv[1] || !argv[2])
		return cai_fail(err, EINVAL, "prepare needs a disk and the type of its file system");
	p->root = (struct rootfs_plan){.dev = argv[1], .fstype = argv[2]};
	int i = 3;
	if (argv[i] && !strcmp(argv[i], "--overlay")) {
		p->root.overlay = true;
		i++;
	} else if (argv[i] && !strcmp(argv[i], "--upper") && argv[i + 1] && argv[i + 2]) {
		p->root.overlay = true;
		p->root.upper_dev = argv[i + 1];
		p->root.upper_fstype = argv[i + 2];
		i += 3;
	}
	if (argv[i] && !strcmp(argv[i], "--") && argv[i + 1]) {
		p->command = argv + i + 1;
		return 0;
	}
	return argv[i] ? cai_fail(err, EINVAL, "prepare does not know %.64s", argv[i]) : 0;
}

static int own_mount(const char *type, const char *where, unsigned long flags, const char *options, struct cai_error *err)
{
	return mount(type, where, type, flags, options) < 0 && errno != ENOENT ? cai_fail_errno(err, errno, "cannot mount %s", where) : 0;
}

/* Up to where SETUP takes over: a root on /newroot. */
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
	return rootfs_scratch(prepared, err);
}

/* The host's side. */

static void put_setup(struct buf *b, const struct prepare *p, enum round round)
{
	struct agent_setup m = {.hostname = (char[]){""}, .root_dev = (char[]){""}};
	struct timespec now;
	if (round != ROUND_PREPARED) {
		clock_gettime(CLOCK_REALTIME, &now);
		m = (struct agent_setup){.hostname = (char[]){"template"},
					 .realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
					 .root_dev = (char *)(uintptr_t)p->root.dev,
					 .root_fstype = (char *)(uintptr_t)p->root.fstype,
					 .root_mode = AGENT_ROOT_OVERLAY_TMPFS,
					 .hosts = (char[]){"127.0.0.1 localhost\n"},
					 .resolv_conf = (char[]){"nameserver 10.0.0.1\n"},
					 .n_ifaces = 1,
					 .iface = {{.mac = {2, 0, 0, 0, 0, 1},
						    .mtu = 1400,
						    .n_addrs = 2,
						    .addr = {(char[]){"10.0.0.2/24"}, (char[]){"fd00::2/64"}},
						    .gateway4 = (char[]){"10.0.0.1"},
						    .gateway6 = (char[]){"fd00::1"}}}};
		if (getrandom(m.entropy, sizeof(m.entropy), 0) < 0)
			memset(m.entropy, 0, sizeof(m.entropy));
	}
	agent_put_setup(b, &m);
}

/* One frame of the agent's. Its type; 0 when there is none. The body is the caller's. */
static unsigned receive(int fd, uint8_t **body, uint32_t *len)
{
	uint8_t raw[AGENT_HEADER_SIZE];
	struct agent_header h;
	if (file_read_full(fd, raw, sizeof(raw)) != (ssize_t)sizeof(raw) || agent_get_header(raw, &h, NULL) < 0)
		return 0;
	*body = malloc(h.len + 1u);
	*len = h.len;
	return *body && file_read_full(fd, *body, h.len) == (ssize_t)h.len ? h.type : 0;
}

/* Reads to the end of a program. True: it ended with 0. show: its output, and what is wrong. */
static bool finish(int fd, bool show)
{
	for (;;) {
		cleanup_free uint8_t *body = NULL;
		struct agent_error e;
		struct agent_exit x;
		uint32_t len;
		switch (receive(fd, &body, &len)) {
		case AGENT_STDOUT:
			if (show)
				file_write_full(STDOUT_FILENO, body, len);
			break;
		case AGENT_STDERR:
			if (show)
				file_write_full(STDERR_FILENO, body, len);
			break;
		case AGENT_EXIT:
			if (agent_get_exit(body, len, &x, NULL) < 0)
				return false;
			if (show && (x.signal || x.status))
				dprintf(STDERR_FILENO, "the warm-up ended with %s%u\n", x.signal ? "signal " : "", x.signal ? x.signal : x.status);
			return !x.signal && !x.status;
		case AGENT_ERROR:
			if (show && agent_get_error(body, len, &e, NULL) == 0) {
				dprintf(STDERR_FILENO, "%s\n", e.text);
				agent_error_free(&e);
			}
			return false;
		case 0:
			return false;
		default:
			break;
		}
	}
}

/* A stream for each program. Returns what this process ends with. */
static int play_host(const struct prepare *p, enum round round, const int *fd)
{
	static char true_[] = "/bin/true", sh[] = "/bin/sh", dash_c[] = "-c", colon[] = ":";
	char *const usual[][4] = {{true_, NULL}, {sh, dash_c, colon, NULL}};
	static char *no_env[] = {NULL};
	static struct recache cache;
	bool good = true;

	if (round == ROUND_FIRST)
		recache_watch(&cache, "/newroot");
	for (unsigned i = 0, k = p->command ? 0 : 1; k <= ARRAY_LEN(usual); i++, k++) {
		struct agent_start m = {.argv = (char **)(uintptr_t)(k ? usual[k - 1] : p->command), .env = k ? no_env : environ};
		struct buf b = {0};
		if (i == 0)
			put_setup(&b, p, round);
		agent_put_start(&b, &m);
		if (b.failed || file_write_full(fd[i], b.p, b.len) < 0)
			good = false;
		buf_free(&b);
		good &= finish(fd[i], k == 0 && round == ROUND_FIRST) || k > 0;
		if (round == ROUND_FIRST)
			recache_note(&cache);
	}
	if (round == ROUND_FIRST)
		recache_read(&cache);
	return good || round != ROUND_FIRST ? 0 : 1;
}

/* The agent's side. */

static void power_off(void *ctx)
{
}

static int serve(const struct prepare *p, enum round round, int *fd, unsigned n, struct cai_error *err)
{
	struct machine machine = MACHINE_INIT;
	const struct agent_ops ops = {
		.setup = machine_setup,
		.poweroff = power_off,
		.spawn = spawn_process,
		.signal_session = spawn_signal_session,
		.oom_kills = machine_oom_kills,
		.ctx = &machine,
		.first_together = true,
		.reap_all = true,
	};
	sigset_t chld;

	if (round == ROUND_PREPARED) {
		struct rootfs entered = ROOTFS_INIT; /* SETUP stays in it */
		if (rootfs_enter(&entered, true, err) < 0)
			return -1;
	} else {
		snprintf(machine.root.lower, sizeof(machine.root.lower), "%s", p->root.dev);
		machine.root.lower_type = p->root.fstype;
		machine.root.overlay = true;
		etc_prepare(&machine.etc, "/newroot/etc");
		netif_make_pair();
		netif_early(&machine.net);
	}
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
	struct agent *a = agent_new(&ops, err);
	int rc = a ? 0 : -1;
	for (unsigned i = 0; rc == 0 && i < n; i++)
		rc = agent_add_stream(a, steal_fd(&fd[i]), err);
	return rc < 0 ? -1 : agent_run(a, err);
}

/* The world's first process. Returns its exit status. */
static int live(const struct prepare *p, enum round round)
{
	struct cai_error err = {.text = ""};
	int mine[MAX_PROGRAMS + 1], theirs[MAX_PROGRAMS + 1], said[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (make_world(round == ROUND_PREPARED, &err) < 0)
		goto bad;
	/* The last stream is for POWEROFF. */
	for (unsigned i = 0; i <= MAX_PROGRAMS; i++) {
		int sp[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp) < 0) {
			cai_fail_errno(&err, errno, "cannot make a socket for a warm-up");
			goto bad;
		}
		mine[i] = sp[0];
		theirs[i] = sp[1];
	}
	pid_t pid = pipe2(said, O_CLOEXEC) < 0 ? -1 : fork();
	if (pid < 0) {
		cai_fail_errno(&err, errno, "cannot start a warm-up");
		goto bad;
	}
	if (pid == 0) {
		for (unsigned i = 0; i <= MAX_PROGRAMS; i++)
			close(mine[i]);
		const uint8_t status = (uint8_t)play_host(p, round, theirs);
		struct buf b = {0};
		file_write_full(said[1], &status, 1);
		agent_put_frame(&b, AGENT_POWEROFF, NULL, 0);
		file_write_full(theirs[MAX_PROGRAMS], b.p, b.len);
		_exit(0);
	}
	for (unsigned i = 0; i <= MAX_PROGRAMS; i++)
		close(theirs[i]);
	close(said[1]);
	uint8_t status = 1;
	if (serve(p, round, mine, MAX_PROGRAMS + 1, &err) == 0) {
		file_read_full(said[0], &status, 1);
		return status;
	}
bad:
	dprintf(STDERR_FILENO, "%s\n", err.text);
	return 1;
}

static int in_a_world(const struct prepare *p, enum round round, struct cai_error *err)
{
	const unsigned flags = GUEST_CLONE_NEWNS | GUEST_CLONE_NEWPID | GUEST_CLONE_NEWNET | GUEST_CLONE_NEWIPC | GUEST_CLONE_NEWUTS;
	int status;
	pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot make namespaces for a warm-up");
	if (pid == 0)
		_exit(live(p, round));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return cai_fail_errno(err, errno, "cannot wait for the warm-up");
	/* It has said why. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : cai_fail(err, 0, "the warm-up failed");
}

/*
 * One second and two seconds after its start the kernel has things to do that take longer than a small program does: it looks through the table of
 * connections, and gives free memory back to the host. When that is near it is not left to the copies.
 */
static void wait_out_chores(void)
{
	struct timespec now;
	struct stat st;
	/* As old as the agent, by the clock that nobody has set yet. */
	if (lstat("/dev/fd", &st) < 0 || clock_gettime(CLOCK_REALTIME, &now) < 0)
		return;
	long age = (long)(now.tv_sec - st.st_ctim.tv_sec) * 1000 + (now.tv_nsec - st.st_ctim.tv_nsec) / 1000000;
	for (long chore = 1000; chore <= 2000; chore += 1000)
		if (age > chore - CHORE_NEAR_MS && age < chore + CHORE_LASTS_MS)
			nanosleep(&(struct timespec){.tv_nsec = (chore + CHORE_LASTS_MS - age) * 1000000}, NULL);
}

int prepare_warm_up(char *const *argv, struct cai_error *err)
{
	struct prepare p;
	if (prepare_parse(argv, &p, err) < 0 || in_a_world(&p, ROUND_FIRST, err) < 0 || in_a_world(&p, ROUND_AGAIN, err) < 0)
		return -1;
	if (p.root.overlay && in_a_world(&p, ROUND_PREPARED, err) < 0)
		return -1;
	wait_out_chores();
	sync(); /* or each copy would write the same */
	return 0;
}
