/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User namespaces.
 *
 * Theory of operation: root makes the namespace beforehand, by a child that ends at once: the kernel keeps a dead process's credentials until it is
 * waited for, which is all that writing its maps and opening its namespace needs. So no process is stopped half-way and told to go
 * on. The container's other namespaces stay the host's root's, so the container's root has no power over them whatever capability it gets.
 *
 * Without root the child is in the namespace from its birth. newuidmap and newgidmap (set-uid programs of the distribution) map the ranges
 * that /etc/subuid and /etc/subgid grant; where they are missing, the user alone is mapped, as root.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"

extern char **environ;

uint32_t userns_base(const char *id)
{
	uint32_t h = 2166136261u; /* FNV-1a */
	for (; *id; id++)
		h = (h ^ (unsigned char)*id) * 16777619u;
	return CONTAINER_UID_BASE + (h % CONTAINER_UID_BLOCKS) * CONTAINER_UID_COUNT;
}

static int put(pid_t pid, const char *file, const char *text)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	/* The kernel takes a map in one write only. */
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int end_at_once(void *arg)
{
	_exit(0);
}

int userns_make(uint32_t base, struct cai_error *err)
{
	/* Sharing our memory, so that nothing has to be copied for its one system call; we stand still until it is gone. */
	char stack[4096] __attribute__((aligned(16)));
	pid_t pid = clone(end_at_once, stack + sizeof(stack), CLONE_NEWUSER | CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot make a user namespace");
	char path[64], map[48];
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	snprintf(map, sizeof(map), "0 %u %u", base, CONTAINER_UID_COUNT);
	int fd = put(pid, "uid_map", map) < 0 || put(pid, "gid_map", map) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	int e = errno;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return fd >= 0 ? fd : cai_fail_errno(err, e, "cannot map users into a user namespace");
}

/* The range that a file like /etc/subuid grants to the user, "name:first:count" or with the number for the name. */
static bool granted(const char *file, uid_t uid, unsigned long *first, unsigned long *count)
{
	cleanup_fclose FILE *f = fopen(file, "re");
	char line[256], number[16];
	/* No getpwuid(): a static program would have to load the host's name services. $USER is only a name to look for; newuidmap checks. */
	const char *name = getenv("USER");
	snprintf(number, sizeof(number), "%u", (unsigned)uid);
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = 0;
		if ((!strcmp(line, number) || (name && !strcmp(line, name))) && sscanf(colon + 1, "%lu:%lu", first, count) == 2 && *count)
			return true;
	}
	return false;
}

static int helper(const char *program, pid_t pid, unsigned own, unsigned long first, unsigned long count)
{
	char text[5][24];
	snprintf(text[0], sizeof(text[0]), "%d", (int)pid);
	snprintf(text[1], sizeof(text[1]), "%u", own);
	snprintf(text[2], sizeof(text[2]), "%lu", first);
	snprintf(text[3], sizeof(text[3]), "%lu", count < CONTAINER_UID_COUNT - 1 ? count : CONTAINER_UID_COUNT - 1);
	char *argv[] = {(char *)(uintptr_t)program, text[0], (char *)"0", text[1], (char *)"1", (char *)"1", text[2], text[3], NULL};
	pid_t child;
	int status = -1;
	if (posix_spawnp(&child, program, NULL, NULL, argv, environ) != 0)
		return -1;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

int userns_map_rootless(pid_t pid, char *note, size_t size, struct cai_error *err)
{
	unsigned long first[2], count[2];
	char map[48];
	if (granted("/etc/subuid", geteuid(), &first[0], &count[0]) && granted("/etc/subgid", geteuid(), &first[1], &count[1]) &&
	    helper("newuidmap", pid, geteuid(), first[0], count[0]) == 0) {
		if (helper("newgidmap", pid, getegid(), first[1], count[1]) == 0)
			return 0;
		return cai_fail(err, 0, "newuidmap has mapped this user's range of users, but newgidmap refuses its range of groups");
	}
	snprintf(note, size, "only one user is mapped: install uidmap and give this user a range in /etc/subuid and /etc/subgid for more");
	snprintf(map, sizeof(map), "0 %u 1", (unsigned)geteuid());
	if (put(pid, "setgroups", "deny") < 0 || put(pid, "uid_map", map) < 0)
		return cai_fail_errno(err, errno, "cannot map this user into a user namespace");
	snprintf(map, sizeof(map), "0 %u 1", (unsigned)getegid());
	if (put(pid, "gid_map", map) < 0)
		return cai_fail_errno(err, errno, "cannot map this user's group into a user namespace");
	return 0;
}
