/* SPDX-License-Identifier: Apache-2.0 */
#include "net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

int netns_current(struct cai_error *err)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open the network namespace");
	return fd;
}

int netns_create(struct cai_error *err)
{
	if (unshare(CLONE_NEWNET) < 0)
		return cai_fail_errno(err, errno, "cannot make a network namespace");
	return netns_current(err);
}

int netns_enter(int fd, struct cai_error *err)
{
	return setns(fd, CLONE_NEWNET) < 0 ? cai_fail_errno(err, errno, "cannot enter a network namespace")
					   : 0;
}

uint64_t netns_cookie(int fd)
{
	struct stat st;
	uint64_t cookie = 0;
	socklen_t n = sizeof(cookie);
	cleanup_close int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s >= 0 && getsockopt(s, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &n) == 0 && cookie)
		return cookie;
	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static int open_sysctl(const char *name, int flags)
{
	char path[160];
	if ((size_t)snprintf(path, sizeof(path), "/proc/sys/net/%s", name) >= sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return open(path, flags | O_CLOEXEC);
}

int sysctl_read(const char *name)
{
	char text[16];
	cleanup_close int fd = open_sysctl(name, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	return atoi(text);
}

int sysctl_write(const char *name, int value)
{
	char text[16];
	cleanup_close int fd = open_sysctl(name, O_WRONLY);
	int n = snprintf(text, sizeof(text), "%d", value);
	return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : -1;
}
