/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

ssize_t file_read_full(int fd, void *buf, size_t n)
{
	size_t got = 0;
	while (got < n) {
		ssize_t r = read(fd, (char *)buf + got, n - got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

ssize_t file_pread_full(int fd, void *buf, size_t n, off_t off)
{
	size_t got = 0;
	while (got < n) {
		ssize_t r = pread(fd, (char *)buf + got, n - got, off + (off_t)got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

int file_write_full(int fd, const void *buf, size_t n)
{
	size_t put = 0;
	while (put < n) {
		ssize_t r = write(fd, (const char *)buf + put, n - put);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		put += (size_t)r;
	}
	return 0;
}

int file_read_all(const char *path, size_t max, char **out, size_t *len, struct cai_error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open %s", path);
	size_t cap = 4096, n = 0;
	cleanup_free char *buf = malloc(cap + 1);
	if (!buf)
		return cai_fail(err, ENOMEM, "out of memory reading %s", path);
	for (;;) {
		ssize_t r = file_read_full(fd, buf + n, cap - n);
		if (r < 0)
			return cai_fail_errno(err, errno, "cannot read %s", path);
		n += (size_t)r;
		if (n < cap)
			break;
		if (n > max)
			break;
		cap *= 2;
		char *bigger = realloc(buf, cap + 1);
		if (!bigger)
			return cai_fail(err, ENOMEM, "out of memory reading %s", path);
		buf = bigger;
	}
	if (n > max)
		return cai_fail(err, EFBIG, "%s is larger than the %zu bytes allowed", path, max);
	buf[n] = 0;
	*len = n;
	*out = steal_ptr(&buf);
	return 0;
}

int file_replace(const char *path, const void *data, size_t n, mode_t mode, struct cai_error *err)
{
	char tmp[PATH_MAX];
	if (snprintf(tmp, sizeof(tmp), "%s.tmp.%d", path, (int)getpid()) >= (int)sizeof(tmp))
		return cai_fail(err, ENAMETOOLONG, "path %s is too long", path);
	cleanup_close int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot create %s", tmp);
	if (file_write_full(fd, data, n) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0) {
		int e = errno;
		unlink(tmp);
		return cai_fail_errno(err, e, "cannot write %s", path);
	}
	return 0;
}
