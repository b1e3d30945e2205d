/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A connection has two ends, each with what still has to be written to it. One scratch buffer serves all
 * reads; what cannot be written at once is kept in the end's own buffer, and until that is empty nothing more
 * is read from the other end. So an idle connection holds no memory, and a slow reader stops its writer and
 * nobody else.
 *
 * End of file is passed on as a half-close when all before it has been written. A connection that the sandbox
 * refuses is reset towards the client, as if it had reached the sandbox itself; for a client that came over
 * IPv6, a server that listens on IPv4 only is tried too.
 */
#include "net/helper/proxy.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "net/helper/proxy_internal.h"

#define MAX_CONNS 4096u

struct proxy_listener {
	struct proxy_listener *next;
	struct proxy *proxy;
	struct loop_source *source;
	int fd;
	bool six;
	uint16_t port;
	bool paused;
};

struct end {
	struct proxy_conn *conn;
	int fd;
	struct loop_source *source;
	uint32_t events;
	uint8_t *pending; /* to be written to this end */
	size_t at, len;
	bool eof_in;   /* it will send no more */
	bool eof_sent; /* it has been told that no more comes */
};

struct proxy_conn {
	struct proxy *proxy;
	struct proxy_conn *next, *prev;
	struct end client, guest;
	bool connecting, six;
	uint16_t port;
};

static void on_end(void *ctx, uint32_t events);

socklen_t proxy_guest_addr(const struct proxy *p, bool six, uint16_t port, union proxy_addr *out)
{
	memset(out, 0, sizeof(*out));
	if (six && p->target.addr6.family) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons(port);
		memcpy(&out->in6.sin6_addr, p->target.addr6.b, 16);
		return sizeof(out->in6);
	}
	if (!six && p->target.addr4.family) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = htons(port);
		memcpy(&out->in.sin_addr, p->target.addr4.b, 4);
		return sizeof(out->in);
	}
	return 0;
}

int proxy_guest_socket(const struct proxy *p, bool six, int type)
{
	cleanup_close int fd = socket(six ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (p->device[0] &&
	    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, p->device, (socklen_t)strlen(p->device) + 1) < 0)
		return -1;
	return steal_fd(&fd);
}

static void pause_listeners(struct proxy *p, bool pause)
{
	for (struct proxy_listener *l = p->listeners; l; l = l->next)
		if (l->paused != pause) {
			l->paused = pause;
			loop_set_events(l->source, pause ? 0 : EPOLLIN);
		}
}

static void end_close(struct end *e, bool reset)
{
	struct linger now = {.l_onoff = 1};
	loop_del(e->source);
	e->source = NULL;
	if (e->fd >= 0) {
		if (reset)
			(void)setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(e->fd);
	}
	e->fd = -1;
	free(e->pending);
	e->pending = NULL;
}

static void conn_free(struct proxy_conn *c, bool reset)
{
	struct proxy *p = c->proxy;
	end_close(&c->client, reset);
	end_close(&c->guest, reset);
	if (c->prev)
		c->prev->next = c->next;
	else
		p->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	p->n_conns--;
	free(c);
	pause_listeners(p, false);
}

/*
 * An end that is waited for nothing is taken out of the loop altogether: epoll reports a hang-up whether
 * asked or not, over and over. False: no memory.
 */
static bool set_events(struct end *e, uint32_t events)
{
	if (e->events == events)
		return true;
	e->events = events;
	if (events == 0) {
		loop_del(e->source);
		e->source = NULL;
	} else if (e->source) {
		loop_set_events(e->source, events);
	} else {
		e->source = loop_add_fd(e->conn->proxy->loop, e->fd, events, on_end, e, NULL);
	}
	return events == 0 || e->source;
}

static struct end *other(struct end *e)
{
	return e == &e->conn->client ? &e->conn->guest : &e->conn->client;
}

/* What each end is waited for: to be read when the other has nothing pending, to be written when it has
 * itself. */
static bool update(struct proxy_conn *c)
{
	struct end *ends[2] = {&c->client, &c->guest};
	bool good = true;
	for (int k = 0; k < 2 && !c->connecting; k++) {
		struct end *e = ends[k], *o = ends[1 - k];
		uint32_t events = (!e->eof_in && !o->pending ? EPOLLIN : 0) | (e->pending ? EPOLLOUT : 0);
		good = set_events(e, events) && good;
	}
	return good;
}

/* Passes an end of file on once everything before it is written. */
static void pass_eof(struct end *from)
{
	struct end *to = other(from);
	if (from->eof_in && !to->pending && !to->eof_sent) {
		to->eof_sent = true;
		shutdown(to->fd, SHUT_WR);
	}
}

static int write_pending(struct end *e)
{
	while (e->pending && e->at < e->len) {
		ssize_t n = send(e->fd, e->pending + e->at, e->len - e->at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
		e->at += (size_t)n;
	}
	free(e->pending);
	e->pending = NULL;
	return 0;
}

/* Moves what `from` has sent. -1: the connection is over. */
static int carry(struct end *from)
{
	struct proxy *p = from->conn->proxy;
	struct end *to = other(from);
	ssize_t n = recv(from->fd, p->scratch, sizeof(p->scratch), MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (n == 0) {
		from->eof_in = true;
		return 0;
	}
	ssize_t sent = send(to->fd, p->scratch, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && errno != EAGAIN && errno != EINTR)
		return -1;
	if (sent < 0)
		sent = 0;
	if (sent < n) {
		to->len = (size_t)(n - sent);
		to->at = 0;
		to->pending = malloc(to->len);
		if (!to->pending)
			return -1;
		memcpy(to->pending, p->scratch + sent, to->len);
	}
	return 0;
}

static int begin_connect(struct proxy_conn *c, struct cai_error *err)
{
	union proxy_addr a;
	struct proxy *p = c->proxy;
	int on = 1;
	socklen_t n = proxy_guest_addr(p, c->six, c->port, &a);
	if (n == 0)
		return -1;
	c->guest.fd = proxy_guest_socket(p, c->six, SOCK_STREAM);
	if (c->guest.fd < 0)
		return -1;
	(void)setsockopt(c->guest.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(c->guest.fd, &a.sa, n) < 0 && errno != EINPROGRESS)
		return -1;
	c->guest.events = EPOLLOUT;
	c->guest.source = loop_add_fd(p->loop, c->guest.fd, EPOLLOUT, on_end, &c->guest, err);
	return c->guest.source ? 0 : -1;
}

/* The connection to the sandbox has succeeded or failed. -1: it is over. */
static int connected(struct proxy_conn *c)
{
	int error = 0;
	socklen_t n = sizeof(error);
	if (getsockopt(c->guest.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		return -1;
	if (error == 0) {
		c->connecting = false;
		return 0;
	}
	if (!c->six)
		return -1;
	end_close(&c->guest, true);
	c->six = false;
	return begin_connect(c, NULL);
}

static void on_end(void *ctx, uint32_t events)
{
	struct end *e = ctx;
	struct proxy_conn *c = e->conn;
	bool over;
	if (c->connecting) {
		/* Nothing is asked of the client yet, so what comes from it is its end. */
		over = e == &c->client ? (events & (EPOLLERR | EPOLLHUP)) != 0 : connected(c) < 0;
	} else {
		over = (events & EPOLLERR) != 0;
		if (!over && e->pending)
			over = write_pending(e) < 0;
		if (!over && !e->eof_in && !other(e)->pending)
			over = carry(e) < 0;
		if (!over) {
			pass_eof(&c->client);
			pass_eof(&c->guest);
		}
	}
	bool done = c->client.eof_sent && c->guest.eof_sent;
	if (over || done || !update(c))
		conn_free(c, !done);
}

static void start_conn(struct proxy_listener *l, int fd)
{
	struct proxy *p = l->proxy;
	struct proxy_conn *c = calloc(1, sizeof(*c));
	int on = 1;
	if (!c) {
		close(fd);
		return;
	}
	c->proxy = p;
	c->client = (struct end){.conn = c, .fd = fd};
	c->guest = (struct end){.conn = c, .fd = -1};
	c->connecting = true;
	c->six = l->six && p->target.addr6.family;
	c->port = l->port;
	c->next = p->conns;
	if (c->next)
		c->next->prev = c;
	p->conns = c;
	p->n_conns++;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->client.source = loop_add_fd(p->loop, fd, 0, on_end, &c->client, NULL);
	if (!c->client.source || begin_connect(c, NULL) < 0)
		conn_free(c, true);
}

static void on_listener(void *ctx, uint32_t events)
{
	struct proxy_listener *l = ctx;
	/* A few at a time: connections that exist get their turn too. */
	for (int k = 0; k < 16; k++) {
		if (l->proxy->n_conns >= MAX_CONNS) {
			pause_listeners(l->proxy, true);
			return;
		}
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			/* Out of descriptors: go on when a connection ends. */
			if ((errno == EMFILE || errno == ENFILE) && l->proxy->n_conns)
				pause_listeners(l->proxy, true);
			return;
		}
		start_conn(l, fd);
	}
}

struct proxy *proxy_new(struct loop *l, const struct proxy_target *t, struct cai_error *err)
{
	struct proxy *p = calloc(1, sizeof(*p));
	if (!p) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	p->loop = l;
	p->target = *t;
	if (t->device)
		strncpy(p->device, t->device, sizeof(p->device) - 1);
	p->target.device = NULL;
	return p;
}

int proxy_add_tcp(struct proxy *p, int fd, bool six, uint16_t guest_port, struct cai_error *err)
{
	struct proxy_listener *l = calloc(1, sizeof(*l));
	if (!l)
		return cai_fail(err, ENOMEM, "out of memory");
	*l = (struct proxy_listener){
	    .next = p->listeners, .proxy = p, .fd = fd, .six = six, .port = guest_port};
	l->source = loop_add_fd(p->loop, fd, EPOLLIN, on_listener, l, err);
	if (!l->source) {
		free(l);
		return -1;
	}
	p->listeners = l;
	return 0;
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	while (p->conns)
		conn_free(p->conns, true);
	while (p->listeners) {
		struct proxy_listener *l = p->listeners;
		p->listeners = l->next;
		loop_del(l->source);
		free(l);
	}
	proxy_udp_free(p);
	free(p);
}
