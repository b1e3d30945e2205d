/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: most sandboxes are copies of a machine that was saved when its agent listened. So what every SETUP would do alike is
 * done before; what is left to it is what makes one sandbox different from another. Its order: clock, entropy and host name, the root, what is
 * in it; the network last, when nothing else can fail any more.
 */
#include "guest/machine.h"

#include <errno.h>
#include <fcntl.h>
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
#include "guest/prepare.h"
#include "guest/procs.h"
#include "guest/rootfs.h"

#define TERM_GRACE_MS 500

void machine_early(struct machine *m)
{
	m->early_failed = rootfs_kernel_mounts(&m->early) < 0;
	netif_early(&m->net);
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
	/* Copies of a machine have its generator's key, too: what is added must count at once, not at the next of its own turns. */
	if (fd >= 0 && ioctl(fd, GUEST_RNDADDENTROPY, &e) == 0)
		ioctl(fd, GUEST_RNDRESEEDCRNG);
	explicit_bzero(&e, sizeof(e));
}

int machine_prepare(void *ctx, char *const *argv, uint32_t *code, struct cai_error *err)
{
	struct machine *machine = ctx;
	struct prepare p;

	*code = AGENT_E_ROOTFS;
	if (machine->early_failed)
		return cai_fail(err, machine->early.errnum, "%s", machine->early.text);
	if (prepare_parse(argv, &p, err) < 0 || rootfs_prepare(&machine->root, &p.root, err) < 0)
		return -1;
	if (machine->root.overlay)
		etc_prepare(&machine->etc, "/newroot/etc");
	return 0;
}

void machine_prepared(void *ctx)
{
	struct machine *machine = ctx;
	struct cai_error err;
	/* Where this fails SETUP does it, or says what is wrong. */
	if (machine->root.overlay)
		rootfs_enter(&machine->root, false, &err);
}

static int set_identity(const struct agent_setup *m, struct cai_error *err)
{
	set_clock(m->realtime_ns);
	add_entropy(m->entropy);
	if (m->hostname && *m->hostname && sethostname(m->hostname, strlen(m->hostname)) < 0)
		return cai_fail_errno(err, errno, "cannot set the host name \"%.64s\"", m->hostname);
	return 0;
}

int machine_renew(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	*code = AGENT_E_INTERNAL;
	if (set_identity(m, err) < 0)
		return -1;
	*code = AGENT_E_ROOTFS;
	if (etc_renew(m, err) < 0)
		return -1;
	*code = AGENT_E_NETWORK;
	return netif_renew(&((struct machine *)ctx)->net, m, err);
}

int machine_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	struct machine *machine = ctx;

	*code = AGENT_E_INTERNAL;
	if (machine->early_failed)
		return cai_fail(err, machine->early.errnum, "%s", machine->early.text);
	if (set_identity(m, err) < 0)
		return -1;

	*code = AGENT_E_ROOTFS;
	bool disk = m->root_dev && *m->root_dev;
	if ((disk ? rootfs_setup(&machine->root, m, err) : rootfs_leave(&machine->root, err)) < 0)
		return -1;
	if (!disk)
		rootfs_stay();
	if (!disk || !machine->root.overlay)
		etc_forget(&machine->etc); /* files of a root that will not be */
	if (etc_write(&machine->etc, m, err) < 0)
		return -1;
	if (m->n_mounts) {
		cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (mounts_make(root, m, err) < 0)
			return -1;
	}
	/* The mount, not the file system: what the sandbox's programs cannot write through it, the agent has written before. */
	if ((m->flags & AGENT_SETUP_READONLY_ROOT) && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot make the root file system read-only");

	*code = AGENT_E_NETWORK;
	return netif_setup(&machine->net, m, err);
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
	rootfs_finish(&machine->root);
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
