/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the engine did it all, so this file only takes over what was inherited. The agent makes itself
 * non-dumpable: else a process in the container could open /proc/1/exe, which may be a file of the host's, and could trace the agent where
 * its own user is the same. Children get back to normal when they execute a program.
 */
#include "guest/container.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/kernel_abi.h"
#include "guest/machine.h"
#include "guest/procs.h"

static int socket_option(int fd, int name)
{
	int v = -1;
	socklen_t n = sizeof(v);
	return getsockopt(fd, SOL_SOCKET, name, &v, &n) < 0 ? -1 : v;
}

int container_listener(struct cai_error *err)
{
	int fd = CONTAINER_LISTEN_FD;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* Whatever was left open by mistake must not reach a program. */
	syscall(GUEST_NR_CLOSE_RANGE, (unsigned)fd + 1, ~0u, 0u);
	if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM || socket_option(fd, SO_ACCEPTCONN) != 1)
		return cai_fail(err, ENOTSOCK, "descriptor %d is not a listening Unix stream socket", fd);
	int flags = fcntl(fd, F_GETFL);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || chdir("/") < 0)
		return cai_fail_errno(err, errno, "cannot take over the container's socket");
	return fd;
}

int container_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	return 0;
}

void container_poweroff(void *ctx)
{
	machine_end_processes();
	_exit(0);
}

uint64_t container_oom_kills(void *ctx)
{
	/* The container's own cgroup, as its cgroup namespace shows it: version 2, then version 1. /proc/vmstat is the host's. */
	uint64_t n = procs_counter("/sys/fs/cgroup/memory.events", "oom_kill");
	return n ? n : procs_counter("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill");
}
