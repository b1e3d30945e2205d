/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: two pipes, so that the monitor never holds the user's terminal. One chunk is in flight
 * each way: the next is read when the last was written, which is all the back-pressure a serial port needs.
 */
#include "sandbox/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/outlet.h"
#include "sandbox/watch.h"

struct console {
	bool lossy;
	int from_guest, to_guest; /* ours; to_guest -1 without input */
	struct outlet out;
	struct watch w_guest, w_out, w_in, w_to;
	char buf[4096], inbuf[1024];
	size_t len, off, in_len, in_off;
};

static void update(struct console *c)
{
	watch_set(&c->w_guest, c->len ? 0 : EPOLLIN);
	watch_set(&c->w_out, c->len ? EPOLLOUT : 0);
	watch_set(&c->w_in, c->in_len || c->to_guest < 0 ? 0 : EPOLLIN);
	watch_set(&c->w_to, c->in_len ? EPOLLOUT : 0);
}

static void push_out(struct console *c)
{
	c->off += outlet_write(&c->out, c->buf + c->off, c->len - c->off);
	if (c->off >= c->len || c->lossy)
		c->off = c->len = 0;
}

static bool pull(struct console *c)
{
	ssize_t n = read(c->from_guest, c->buf, sizeof(c->buf));
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			watch_set(&c->w_guest, 0);
			c->w_guest.fd = -1;
		}
		return false;
	}
	c->len = (size_t)n;
	push_out(c);
	return c->len == 0;
}

static void on_guest(void *ctx, uint32_t events)
{
	pull(ctx);
	update(ctx);
}

static void on_out(void *ctx, uint32_t events)
{
	push_out(ctx);
	update(ctx);
}

static void close_input(struct console *c)
{
	watch_set(&c->w_in, 0);
	watch_set(&c->w_to, 0);
	close(c->to_guest);
	c->to_guest = c->w_to.fd = c->w_in.fd = -1;
	c->in_len = 0;
}

/* Passes on what was read; false when the guest's side is gone. */
static bool push_in(struct console *c)
{
	ssize_t n = write(c->to_guest, c->inbuf + c->in_off, c->in_len - c->in_off);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		close_input(c);
		return false;
	}
	if (n > 0)
		c->in_off += (size_t)n;
	if (c->in_off == c->in_len)
		c->in_off = c->in_len = 0;
	return true;
}

static bool take_in(struct console *c)
{
	ssize_t n = read(c->w_in.fd, c->inbuf, sizeof(c->inbuf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		close_input(c);
		return false;
	}
	c->in_len = (size_t)n;
	return push_in(c);
}

/* What epoll refuses to watch (a regular file) is always ready. */
static void take_file(struct console *c)
{
	while (c->w_in.unpollable && c->to_guest >= 0 && !c->in_len && take_in(c))
		;
	update(c);
}

static void on_to(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	if (c->to_guest >= 0)
		push_in(c);
	take_file(c);
}

static void on_in(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	if (c->to_guest >= 0 && !c->in_len)
		take_in(c);
	take_file(c);
}

struct console *console_new(struct loop *l, int in, int out, bool lossy, int *guest_out, int *guest_in,
			    struct cai_error *err)
{
	int o[2], i[2] = {-1, -1};
	struct console *c = calloc(1, sizeof(*c));
	*guest_in = *guest_out = -1;
	if (!c) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (pipe2(o, O_CLOEXEC) < 0) {
		cai_fail_errno(err, errno, "cannot make a pipe");
		free(c);
		return NULL;
	}
	if (in >= 0 && pipe2(i, O_CLOEXEC) < 0) {
		cai_fail_errno(err, errno, "cannot make a pipe");
		close(o[0]);
		close(o[1]);
		free(c);
		return NULL;
	}
	c->lossy = lossy;
	c->from_guest = o[0];
	*guest_out = o[1];
	*guest_in = i[0];
	c->to_guest = i[1];
	fcntl(c->from_guest, F_SETFL, O_NONBLOCK);
	if (c->to_guest >= 0)
		fcntl(c->to_guest, F_SETFL, O_NONBLOCK);
	outlet_init(&c->out, out);
	c->w_guest = (struct watch){.loop = l, .fd = c->from_guest, .fn = on_guest, .ctx = c};
	c->w_out = (struct watch){.loop = l, .fd = out, .fn = on_out, .ctx = c};
	c->w_in = (struct watch){.loop = l, .fd = in, .fn = on_in, .ctx = c};
	c->w_to = (struct watch){.loop = l, .fd = c->to_guest, .fn = on_to, .ctx = c};
	update(c);
	take_file(c);
	return c;
}

void console_drain(struct console *c)
{
	if (!c)
		return;
	/* Bounded patience: an outlet nobody reads must not keep a finished sandbox alive. */
	for (unsigned i = 0; i < 1000; i++) {
		if (c->len) {
			struct pollfd p = {.fd = c->out.fd, .events = POLLOUT};
			if (c->lossy || poll(&p, 1, 2000) <= 0)
				return;
			push_out(c);
		} else if (c->w_guest.fd < 0 || (!pull(c) && !c->len)) {
			return;
		}
	}
}

void console_free(struct console *c)
{
	if (!c)
		return;
	watch_set(&c->w_guest, 0);
	watch_set(&c->w_out, 0);
	watch_set(&c->w_in, 0);
	watch_set(&c->w_to, 0);
	close(c->from_guest);
	if (c->to_guest >= 0)
		close(c->to_guest);
	free(c);
}
