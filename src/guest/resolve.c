/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: openat2 opens what is there. To make what is missing, each prefix of the path is opened the same way, from the
 * directory again, and the first one that does not exist is made in the one before it: a name that was just resolved within the
 * bounds, so that mkdirat with one component cannot leave them either.
 */
#include "guest/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/kernel_abi.h"

#define MAX_TRIES 64 /* the kernel gives up (EAGAIN) on ".." when anything is being renamed */

int resolve_open(int dir, const char *path, enum resolve_scope scope, int flags)
{
	struct guest_open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.resolve = GUEST_RESOLVE_NO_MAGIC | (scope == RESOLVE_BENEATH ? GUEST_RESOLVE_BENEATH : GUEST_RESOLVE_IN_ROOT),
	};
	int fd = -1;
	for (int i = 0; i < MAX_TRIES; i++) {
		fd = (int)syscall(GUEST_NR_OPENAT2, dir, *path ? path : ".", &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd;
}

static int make_dirs(int dir, const char *path, enum resolve_scope scope)
{
	char prefix[PATH_MAX];
	size_t n = 0;
	cleanup_close int at = resolve_open(dir, "", scope, O_PATH | O_DIRECTORY);

	if (strlen(path) >= sizeof(prefix)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	while (at >= 0 && path[n]) {
		size_t from = n + strspn(path + n, "/");
		n = from + strcspn(path + from, "/");
		memcpy(prefix, path, n);
		prefix[n] = 0;
		if (n == from)
			break;
		int next = resolve_open(dir, prefix, scope, O_PATH | O_DIRECTORY);
		if (next < 0 && errno == ENOENT) {
			if (mkdirat(at, prefix + from, 0755) < 0 && errno != EEXIST)
				return -1;
			next = resolve_open(dir, prefix, scope, O_PATH | O_DIRECTORY);
		}
		close(at);
		at = next;
	}
	return at < 0 ? -1 : steal_fd(&at);
}

int resolve_dir(int dir, const char *path, enum resolve_scope scope, bool make)
{
	int fd = resolve_open(dir, path, scope, O_PATH | O_DIRECTORY);
	return fd < 0 && errno == ENOENT && make ? make_dirs(dir, path, scope) : fd;
}
