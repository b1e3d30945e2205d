/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the port buffers output by itself and calls console_wake() on a vCPU's thread for the first byte. The
 * loop then waits a moment and writes what has gathered, so that a line is one write and not eighty. The descriptors
 * may be shared with a shell, so they are not made non-blocking; instead poll(2) is asked before each write, which is
 * small enough for a pipe or a terminal that says it is writable to take. When the reader stops reading, the port's buffer
 * fills and its transmitter goes busy: the guest's driver waits, as with a real line.
 */
#include "vmm/console.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/util.h"

#define GATHER_NS   1000000u /* how long output gathers before it is written */
#define FLUSH_LIMIT 256      /* writes in console_flush: the whole of a port's buffer several times over */

static bool ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, 0) > 0 && (p.revents & (events | POLLERR | POLLHUP));
}

static void drop_out(struct console *c)
{
	loop_del(c->out_source);
	c->out_source = NULL;
	c->out_fd = -1;
	c->out_len = 0;
}

/* One write at most; true when there may be more to do at once. */
static bool write_some(struct console *c)
{
	if (!c->out_len) {
		c->out_len = serial_drain(c->serial, c->out, sizeof(c->out));
		c->whole_line = c->whole_line || memchr(c->out, '\n', c->out_len);
	}
	if (!c->out_len)
		return false;
	if (c->out_fd < 0) {
		/* Nobody listens: the port must not stay busy. */
		c->out_len = 0;
		return true;
	}
	if (!ready(c->out_fd, POLLOUT)) {
		c->out_blocked = true;
		return false;
	}
	ssize_t n = write(c->out_fd, c->out, c->out_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->out_blocked = errno == EAGAIN;
		return errno == EINTR;
	}
	if (n < 0) {
		drop_out(c); /* a closed pipe, a full disk: the guest goes on without a console */
		return true;
	}
	memmove(c->out, c->out + n, c->out_len - (size_t)n);
	c->out_len -= (size_t)n;
	return true;
}

static void on_writable(void *ctx, uint32_t events);

static void pump_out(struct console *c)
{
	c->out_blocked = false;
	c->whole_line = false;
	while (write_some(c))
		;
	if (c->whole_line && c->written)
		c->written(c->ctx);
	if (!c->out_blocked) {
		if (c->out_source) {
			loop_del(c->out_source);
			c->out_source = NULL;
		}
	} else if (!c->out_source) {
		/* A regular file cannot be watched, but it never blocks either. */
		c->out_source = loop_add_fd(c->loop, c->out_fd, EPOLLOUT, on_writable, c, NULL);
	}
}

static void on_writable(void *ctx, uint32_t events)
{
	pump_out(ctx);
}

static void on_timer(void *ctx)
{
	struct console *c = ctx;
	c->armed = false;
	atomic_store(&c->out_wanted, false);
	pump_out(c);
}

/* Gives the port what it takes. Pending input stops the watching, or the loop would spin; a descriptor that has hung up is
 * not watched at all any more but read as the port makes space, until its end. */
static void pump_in(struct console *c)
{
	while (c->in_fd >= 0) {
		if (!c->in_len) {
			if (!ready(c->in_fd, POLLIN))
				break;
			ssize_t n = read(c->in_fd, c->in, sizeof(c->in));
			if (n < 0 && (errno == EINTR || errno == EAGAIN))
				break;
			if (n <= 0) {
				loop_del(c->in_source);
				c->in_source = NULL;
				c->in_fd = -1;
				return;
			}
			c->in_len = (size_t)n;
		}
		size_t took = serial_input(c->serial, c->in, c->in_len);
		memmove(c->in, c->in + took, c->in_len - took);
		c->in_len -= took;
		if (c->in_len)
			break;
	}
	if (c->in_source)
		loop_set_events(c->in_source, c->in_len ? 0 : EPOLLIN);
}

static void on_readable(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	if (c->in_len) {
		/* Only a hang-up is still reported. */
		loop_del(c->in_source);
		c->in_source = NULL;
		return;
	}
	pump_in(c);
}

int console_init(struct console *c, struct loop *loop, int out_fd, int in_fd, struct cai_error *err)
{
	*c = (struct console){.loop = loop, .out_fd = out_fd, .in_fd = in_fd};
	c->timer = loop_add_timer(loop, on_timer, c, err);
	if (!c->timer)
		return -1;
	if (in_fd >= 0) {
		struct cai_error why;
		c->in_source = loop_add_fd(loop, in_fd, EPOLLIN, on_readable, c, &why);
		if (!c->in_source && why.errnum == EPERM)
			return cai_fail(err, EPERM, "the console's input is a regular file; a pipe or a terminal is needed");
		if (!c->in_source)
			return cai_fail(err, why.errnum, "%s", why.text);
	}
	return 0;
}

void console_wake(void *console)
{
	struct console *c = console;
	if (!atomic_exchange(&c->out_wanted, true))
		loop_wake(c->loop);
}

void console_space(void *console)
{
	struct console *c = console;
	if (!atomic_exchange(&c->in_wanted, true))
		loop_wake(c->loop);
}

void console_on_wake(struct console *c)
{
	if (atomic_exchange(&c->in_wanted, false))
		pump_in(c);
	if (atomic_load(&c->out_wanted) && !c->armed) {
		c->armed = true;
		loop_timer_set(c->timer, clock_mono_ns() + GATHER_NS);
	}
}

void console_flush(struct console *c)
{
	for (unsigned i = 0; i < FLUSH_LIMIT && c->serial && write_some(c); i++)
		;
}

char *console_tail(struct console *c)
{
	char *text = malloc(SERIAL_TAIL_BYTES + 1);
	if (!text)
		return NULL;
	size_t n = c->serial ? serial_tail(c->serial, text, SERIAL_TAIL_BYTES) : 0, to = 0;
	for (size_t i = 0; i < n; i++)
		if (text[i])
			text[to++] = text[i];
	text[to] = 0;
	return text;
}
