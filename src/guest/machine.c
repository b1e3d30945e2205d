/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the time until the agent listens is part of every sandbox's start, so before it there is one mount and
 * one socket; all else waits for SETUP, which knows what is wanted. SETUP's order: /dev (the disk is found there), the root, and
 * only inside it the rest, so that nothing is mounted twice; the network last, when nothing else can fail any more.
 */
#include "guest/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/etc.h"
#include "guest/kernel_abi.h"
#include "guest/mounts.h"
#include "guest/netif.h"
#include "guest/procs.h"
#include "guest/rootfs.h"

#define TERM_GRACE_MS 500

void machine_early(void)
{
	/* The initramfs has the directory; a foreign one may not. */
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 && errno == ENOENT) {
		mkdir("/proc", 0555);
		mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	}
}

bool machine_cmdline_has(const char *word)
{
	char text[4096];
	cleanup_close int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return false;
	text[n] = 0;
	char *save = NULL;
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
		if (!strcmp(w, word))
			return true;
	return false;
}

static void write_file(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		return; /* what is written this way is good to have, no more */
}

static void set_clock(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
	if (ns)
		clock_settime(CLOCK_REALTIME, &ts);
}

/* Credits the host's random bytes in full: the guest has no better source than its host. */
static void add_entropy(const uint8_t bytes[32])
{
	static const uint8_t none[32];
	struct guest_pool_entropy e = {.bits = 256, .bytes = 32};
	if (!memcmp(bytes, none, sizeof(none)))
		return;
	cleanup_close int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	memcpy(e.data, bytes, sizeof(e.data));
	if (fd >= 0)
		ioctl(fd, GUEST_RNDADDENTROPY, &e);
	explicit_bzero(&e, sizeof(e));
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		ioctl(fd, SIOCSIFFLAGS, &ifr);
}

int machine_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	struct machine *machine = ctx;
	bool disk = m->root_dev && *m->root_dev;

	*code = AGENT_E_INTERNAL;
	set_clock(m->realtime_ns);
	mkdir("/dev", 0755);
	/* EBUSY: an earlier SETUP got this far and then failed. */
	if (access("/dev/urandom", F_OK) < 0 && mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 && errno != EBUSY)
		return cai_fail_errno(err, errno, "cannot mount /dev in the guest");
	add_entropy(m->entropy);
	if (m->hostname && *m->hostname && sethostname(m->hostname, strlen(m->hostname)) < 0)
		return cai_fail_errno(err, errno, "cannot set the host name \"%.64s\"", m->hostname);
	loopback_up();
	write_file("/proc/self/oom_score_adj", "-1000");

	*code = AGENT_E_ROOTFS;
	if (disk && rootfs_mount(m, &machine->upper_fd, err) < 0)
		return -1;
	if (disk && rootfs_enter(m, err) < 0) {
		if (machine->upper_fd >= 0)
			close(steal_fd(&machine->upper_fd));
		return -1;
	}
	if (!disk && rootfs_populate(false, err) < 0)
		return -1;
	if (etc_write(m, err) < 0)
		return -1;
	cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (mounts_make(root, m, err) < 0)
		return -1;
	/* The mount, not the file system: what the sandbox's programs cannot write through it, the agent has written before. */
	if ((m->flags & AGENT_SETUP_READONLY_ROOT) && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot make the root file system read-only");

	*code = AGENT_E_NETWORK;
	return netif_setup(m, err);
}

/* Waits until this process has no children left, at most ms. */
static bool wait_for_all(int ms)
{
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);
		if (pid < 0 && errno == ECHILD)
			return true;
		if (pid == 0) {
			if (ms <= 0)
				return false;
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
			ms -= 2;
		}
	}
}

void machine_end_processes(void)
{
	if (wait_for_all(0))
		return;
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	if (!wait_for_all(TERM_GRACE_MS)) {
		kill(-1, SIGKILL);
		wait_for_all(TERM_GRACE_MS);
	}
}

uint64_t machine_oom_kills(void *ctx)
{
	return procs_counter("/proc/vmstat", "oom_kill");
}

void machine_poweroff(void *ctx)
{
	struct machine *machine = ctx;
	machine_end_processes();
	rootfs_finish(machine->upper_fd);
	reboot(RB_POWER_OFF);
	/* A machine that cannot power off must not run on without anybody who serves it. */
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}

int machine_listen(struct cai_error *err)
{
	struct guest_sockaddr_vm addr = {.family = AF_VSOCK, .port = AGENT_PORT, .cid = GUEST_VSOCK_CID_ANY};
	cleanup_close int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 128) < 0)
		return cai_fail_errno(err, errno, "cannot listen on vsock port %d", AGENT_PORT);
	return steal_fd(&fd);
}

int machine_announce(struct cai_error *err)
{
	struct guest_sockaddr_vm addr = {.family = AF_VSOCK, .port = AGENT_READY_PORT, .cid = GUEST_VSOCK_CID_HOST};
	cleanup_close int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return cai_fail_errno(err, errno, "cannot reach the monitor over vsock");
	return 0;
}
