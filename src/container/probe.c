/* SPDX-License-Identifier: Apache-2.0 */
/* What this host lacks for containers, in the words of `caisson doctor`. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"

/* In a child, since a namespace cannot be left again. */
static bool can_unshare(int flags)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(unshare(flags) == 0 ? 0 : 1);
	int status = -1;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool container_probe(char *text, size_t size)
{
	bool root = geteuid() == 0;
	*text = 0;
	struct mount_attr none = {0};
	if (mount_setattr(-1, "", 0, &none, sizeof(none)) < 0 && errno == ENOSYS) {
		snprintf(text, size, "the host's kernel is older than 5.12, which the container engine needs");
		return false;
	}
	if (!can_unshare((root ? 0 : CLONE_NEWUSER) | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)) {
		snprintf(text, size, "the host does not let this user make a container's namespaces");
		return false;
	}
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0) {
		snprintf(text, size, "the host's kernel has no seccomp, which the container engine needs");
		return false;
	}
	if (root && !can_unshare(CLONE_NEWUSER))
		snprintf(text, size, "no user namespaces: a container's root is the host's, confined");
	else if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 2)
		snprintf(text, size, "no Landlock: containers run without that second wall");
	else
		cgroup_missing(text, size);
	return true;
}
