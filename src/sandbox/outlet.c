/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: when poll(2) calls a pipe writable it has a free page-sized buffer, so a write of at
 * most 4096 bytes cannot block (pipe(7)); a terminal has room for a few hundred. A socket has MSG_DONTWAIT.
 * Regular files and their like are always ready. So each write is preceded by a poll with no timeout and kept
 * small, at the price of a system call for each 4 KiB.
 */
#include "sandbox/outlet.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TTY_CHUNK 256

void outlet_init(struct outlet *o, int fd)
{
	struct stat st;
	*o = (struct outlet){.fd = fd};
	if (fd < 0 || fstat(fd, &st) < 0) {
		o->broken = EBADF;
		return;
	}
	o->socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode))
		o->chunk = PIPE_BUF;
	else if (S_ISCHR(st.st_mode))
		o->chunk = isatty(fd) ? TTY_CHUNK : PIPE_BUF;
}

size_t outlet_write(struct outlet *o, const void *p, size_t n)
{
	const uint8_t *b = p;
	size_t done = 0;
	while (done < n && !o->broken) {
		size_t len = n - done;
		if (o->chunk) {
			struct pollfd pf = {.fd = o->fd, .events = POLLOUT};
			if (poll(&pf, 1, 0) == 0)
				return done;
			if (len > o->chunk)
				len = o->chunk;
		}
		ssize_t w = o->socket ? send(o->fd, b + done, len, MSG_DONTWAIT | MSG_NOSIGNAL)
				      : write(o->fd, b + done, len);
		if (w >= 0)
			done += (size_t)w;
		else if (errno == EAGAIN)
			return done;
		else if (errno != EINTR)
			o->broken = errno;
	}
	return n;
}
