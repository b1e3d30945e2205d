/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Two directions, each with one buffer: bytes are read into it, whole frames are taken out of it, and what
 * the other side does not take at once stays. While something stays, nothing more is read: whoever is slow
 * stops its own sender. On the way to passt the frames that pass the sieve are moved together in place; on
 * the way back nothing is judged, since passt is trusted as far as its user is.
 *
 * The list of the host's addresses is read again when the kernel says that it changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/helper/sieve.h"

#define LENGTH 4u
#define BUFFER (4u * (LENGTH + SIEVE_FRAME_MAX))

struct direction {
	struct relay *relay;
	int from, to;
	bool from_tap, to_tap, judged;
	struct loop_source *in, *out; /* out: only while something stays */
	uint8_t *b;
	size_t at;    /* written to the other side up to here */
	size_t ready; /* frames that go on end here */
	size_t len;   /* read up to here: the rest is the beginning of a frame */
};

struct relay {
	struct loop *loop;
	struct relay_options o;
	struct direction there, back;
	struct loop_source *notice;
};

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/* Goes over the whole frames between ready and len; those that do not pass are closed over. -1: no frame can
 * be this long. */
static int judge(struct direction *d)
{
	size_t from = d->ready, to = d->ready;
	while (d->len - from >= LENGTH) {
		size_t n = get32(d->b + from);
		if (n > SIEVE_FRAME_MAX)
			return -1;
		if (d->len - from < LENGTH + n)
			break;
		if (!d->judged || sieve_pass(&d->relay->o.sieve, d->b + from + LENGTH, n)) {
			memmove(d->b + to, d->b + from, LENGTH + n);
			to += LENGTH + n;
		}
		from += LENGTH + n;
	}
	memmove(d->b + to, d->b + from, d->len - from);
	d->len -= from - to;
	d->ready = to;
	return 0;
}

/* -1: the source has ended. */
static int fill(struct direction *d)
{
	/* Room for a whole frame is made at the front. */
	if (d->at) {
		memmove(d->b, d->b + d->at, d->len - d->at);
		d->len -= d->at;
		d->ready -= d->at;
		d->at = 0;
	}
	size_t head = d->from_tap ? LENGTH : 0;
	ssize_t n = read(d->from, d->b + d->len + head, BUFFER - d->len - head);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR || errno == EIO ? 0 : -1;
	if (n == 0)
		return -1;
	if (d->from_tap)
		put32(d->b + d->len, (uint32_t)n);
	d->len += head + (size_t)n;
	return judge(d);
}

/* 1: something stays; -1: the other side has ended. */
static int drain(struct direction *d)
{
	while (d->at < d->ready) {
		ssize_t n;
		if (d->to_tap) {
			size_t frame = get32(d->b + d->at);
			n = write(d->to, d->b + d->at + LENGTH, frame);
			/* A frame that the kernel does not like is lost, as on a cable. */
			if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EBADFD)
				n = (ssize_t)frame;
			if (n >= 0)
				n = (ssize_t)(LENGTH + frame);
		} else {
			n = send(d->to, d->b + d->at, d->ready - d->at, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 1 : -1;
		d->at += (size_t)n;
	}
	return 0;
}

static void on_out(void *ctx, uint32_t events);

static void move(struct direction *d, bool read_too)
{
	struct relay *r = d->relay;
	if (read_too && fill(d) < 0) {
		loop_stop(r->loop);
		return;
	}
	int stays = drain(d);
	if (stays < 0) {
		loop_stop(r->loop);
		return;
	}
	loop_set_events(d->in, stays ? 0 : EPOLLIN);
	if (stays && !d->out) {
		d->out = loop_add_fd(r->loop, d->to, EPOLLOUT, on_out, d, NULL);
		if (!d->out)
			loop_stop(r->loop);
	} else if (!stays && d->out) {
		loop_del(d->out);
		d->out = NULL;
	}
}

static void on_in(void *ctx, uint32_t events)
{
	struct direction *d = ctx;
	/* A hang-up is told even when nothing was asked; what the other side has not taken is of no use then.
	 */
	move(d, d->at == d->ready || (events & (EPOLLHUP | EPOLLERR)));
}

static void on_out(void *ctx, uint32_t events)
{
	move(ctx, false);
}

static int one_address(const struct ip_addr *a, void *ctx)
{
	struct sieve *s = ctx;
	if (s->n_host < SIEVE_ADDRS)
		s->host[s->n_host++] = *a;
	return 0;
}

static void read_addresses(struct relay *r)
{
	struct sieve fresh = r->o.sieve;
	fresh.n_host = 0;
	if (r->o.netlink_fd >= 0 && rtnl_each_addr(r->o.netlink_fd, one_address, &fresh, NULL) == 0)
		r->o.sieve = fresh;
}

static void on_notice(void *ctx, uint32_t events)
{
	struct relay *r = ctx;
	char text[8192];
	/* What exactly changed does not matter, nor does it when there was too much to tell (ENOBUFS). */
	while (recv(r->o.notice_fd, text, sizeof(text), MSG_DONTWAIT) > 0)
		;
	read_addresses(r);
}

/* One descriptor is watched for reading and for writing: epoll wants two numbers for that. */
static int start(struct direction *d, struct relay *r, int from, int to, struct cai_error *err)
{
	d->relay = r;
	d->from = from;
	d->to = fcntl(to, F_DUPFD_CLOEXEC, 3);
	d->b = malloc(BUFFER);
	if (!d->b || d->to < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	if (fcntl(from, F_SETFL, fcntl(from, F_GETFL) | O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot prepare a socket");
	d->in = loop_add_fd(r->loop, from, EPOLLIN, on_in, d, err);
	return d->in ? 0 : -1;
}

struct relay *relay_new(struct loop *l, const struct relay_options *o, struct cai_error *err)
{
	struct relay *r = calloc(1, sizeof(*r));
	if (!r) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->loop = l;
	r->o = *o;
	r->there = (struct direction){.to = -1, .from_tap = o->tap, .judged = true};
	r->back = (struct direction){.to = -1, .to_tap = o->tap};
	read_addresses(r);
	int result = start(&r->there, r, o->sandbox_fd, o->passt_fd, err);
	if (result == 0)
		result = start(&r->back, r, o->passt_fd, o->sandbox_fd, err);
	if (result == 0 && o->notice_fd >= 0) {
		r->notice = loop_add_fd(l, o->notice_fd, EPOLLIN, on_notice, r, err);
		result = r->notice ? 0 : -1;
	}
	if (result < 0) {
		relay_free(r);
		return NULL;
	}
	return r;
}

static void end(struct direction *d)
{
	loop_del(d->in);
	loop_del(d->out);
	if (d->to >= 0)
		close(d->to);
	free(d->b);
}

void relay_free(struct relay *r)
{
	if (!r)
		return;
	end(&r->there);
	end(&r->back);
	loop_del(r->notice);
	free(r);
}
