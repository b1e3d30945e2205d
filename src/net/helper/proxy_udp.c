/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: each client of a published UDP port gets a flow: a socket that is connected to the
 * sandbox, so that answers find their way back by the socket they come in on. Flows that rest for a minute
 * go; when there are too many, the one that rested longest does.
 *
 * On a socket that is bound to all addresses the answer has to leave from the address that the question came
 * to, or the client does not know it: the kernel says which that was (IP_PKTINFO, RFC 3542) and is told it
 * again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/util.h"
#include "net/helper/proxy_internal.h"

#define FLOW_IDLE_NS (60ull * 1000000000ull)
#define MAX_FLOWS    1024u
#define BURST	     32

struct flow {
	struct proxy_udp *port;
	struct flow *next, *prev; /* most recently used first */
	struct flow *chain;	  /* same hash */
	union proxy_addr client;
	socklen_t client_len;
	union local {
		struct in_pktinfo in;
		struct in6_pktinfo in6;
	} local; /* where the client's last datagram came to */
	bool have_local;
	uint64_t used;
	int fd;
	struct loop_source *source;
};

#define BUCKETS 256u

struct proxy_udp {
	struct proxy_udp *next;
	struct proxy *proxy;
	struct loop_source *source, *timer;
	int fd;
	bool six;
	uint16_t guest_port;
	struct flow *first, *last, *bucket[BUCKETS];
	size_t n_flows;
};

static unsigned hash(const union proxy_addr *a)
{
	const uint8_t *p;
	size_t n;
	uint32_t h = 2166136261u;
	if (a->sa.sa_family == AF_INET6) {
		p = (const void *)&a->in6.sin6_addr;
		n = 16;
		h ^= a->in6.sin6_port;
	} else {
		p = (const void *)&a->in.sin_addr;
		n = 4;
		h ^= a->in.sin_port;
	}
	for (size_t k = 0; k < n; k++)
		h = (h ^ p[k]) * 16777619u;
	return (h ^ h >> 16) % BUCKETS;
}

static bool same(const union proxy_addr *a, const union proxy_addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET6)
		return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
		       memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
	return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

static void unlink_recent(struct flow *f)
{
	struct proxy_udp *u = f->port;
	*(f->prev ? &f->prev->next : &u->first) = f->next;
	*(f->next ? &f->next->prev : &u->last) = f->prev;
}

static void link_first(struct flow *f)
{
	struct proxy_udp *u = f->port;
	f->prev = NULL;
	f->next = u->first;
	*(u->first ? &u->first->prev : &u->last) = f;
	u->first = f;
}

static void flow_free(struct flow *f)
{
	struct proxy_udp *u = f->port;
	struct flow **at = &u->bucket[hash(&f->client)];
	while (*at && *at != f)
		at = &(*at)->chain;
	if (*at)
		*at = f->chain;
	unlink_recent(f);
	u->n_flows--;
	loop_del(f->source);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

static void touch(struct flow *f)
{
	f->used = clock_mono_ns();
	unlink_recent(f);
	link_first(f);
}

static void expire(void *ctx)
{
	struct proxy_udp *u = ctx;
	uint64_t now = clock_mono_ns();
	while (u->last && now - u->last->used >= FLOW_IDLE_NS)
		flow_free(u->last);
	loop_timer_set(u->timer, u->last ? u->last->used + FLOW_IDLE_NS : 0);
}

static void send_answer(struct flow *f, void *p, size_t n)
{
	bool six = f->client.sa.sa_family == AF_INET6;
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(sizeof(union local))];
	} control = {.bytes = {0}};
	struct iovec v = {p, n};
	struct msghdr m = {
	    .msg_name = &f->client, .msg_namelen = f->client_len, .msg_iov = &v, .msg_iovlen = 1};
	if (f->have_local) {
		size_t size = six ? sizeof(f->local.in6) : sizeof(f->local.in);
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(size);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = six ? IPPROTO_IPV6 : IPPROTO_IP;
		c->cmsg_type = six ? IPV6_PKTINFO : IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(c), &f->local, size);
	}
	(void)!sendmsg(f->port->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Answers of the sandbox. */
static void on_answer(void *ctx, uint32_t events)
{
	struct flow *f = ctx;
	struct proxy *p = f->port->proxy;
	for (int k = 0; k < BURST; k++) {
		ssize_t n = recv(f->fd, p->scratch, sizeof(p->scratch), MSG_DONTWAIT);
		if (n < 0)
			return; /* nothing left, or an ICMP error, which reading has cleared */
		touch(f);
		send_answer(f, p->scratch, (size_t)n);
	}
}

static void note_local(struct flow *f, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo i;
			memcpy(&i, CMSG_DATA(c), sizeof(i));
			/* The address only: the way back is the routing table's business. */
			f->local.in = (struct in_pktinfo){.ipi_spec_dst = i.ipi_addr};
			f->have_local = true;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&f->local.in6, CMSG_DATA(c), sizeof(f->local.in6));
			if (!IN6_IS_ADDR_LINKLOCAL(&f->local.in6.ipi6_addr))
				f->local.in6.ipi6_ifindex = 0;
			f->have_local = true;
		}
	}
}

static struct flow *flow_for(struct proxy_udp *u, const union proxy_addr *client, socklen_t len)
{
	unsigned h = hash(client);
	union proxy_addr guest;
	for (struct flow *f = u->bucket[h]; f; f = f->chain)
		if (same(&f->client, client)) {
			touch(f);
			return f;
		}
	bool six = u->six && u->proxy->target.addr6.family;
	socklen_t n = proxy_guest_addr(u->proxy, six, u->guest_port, &guest);
	if (n == 0)
		return NULL;
	if (u->n_flows >= MAX_FLOWS)
		flow_free(u->last);
	struct flow *f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct flow){.port = u, .client = *client, .client_len = len, .used = clock_mono_ns()};
	f->fd = proxy_guest_socket(u->proxy, six, SOCK_DGRAM);
	link_first(f);
	f->chain = u->bucket[h];
	u->bucket[h] = f;
	u->n_flows++;
	if (f->fd >= 0 && connect(f->fd, &guest.sa, n) == 0)
		f->source = loop_add_fd(u->proxy->loop, f->fd, EPOLLIN, on_answer, f, NULL);
	if (!f->source) {
		flow_free(f);
		return NULL;
	}
	if (u->n_flows == 1)
		loop_timer_set(u->timer, f->used + FLOW_IDLE_NS);
	return f;
}

static void on_datagram(void *ctx, uint32_t events)
{
	struct proxy_udp *u = ctx;
	struct proxy *p = u->proxy;
	for (int k = 0; k < BURST; k++) {
		union proxy_addr client;
		union {
			struct cmsghdr align;
			uint8_t bytes[128];
		} control;
		struct iovec v = {p->scratch, sizeof(p->scratch)};
		struct msghdr m = {.msg_name = &client,
				   .msg_namelen = sizeof(client),
				   .msg_iov = &v,
				   .msg_iovlen = 1,
				   .msg_control = &control,
				   .msg_controllen = sizeof(control)};
		memset(&client, 0, sizeof(client));
		ssize_t n = recvmsg(u->fd, &m, MSG_DONTWAIT);
		if (n < 0)
			return;
		struct flow *f = flow_for(u, &client, m.msg_namelen);
		if (!f)
			continue;
		note_local(f, &m);
		(void)!send(f->fd, p->scratch, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

int proxy_add_udp(struct proxy *p, int fd, bool six, uint16_t guest_port, struct cai_error *err)
{
	struct proxy_udp *u = calloc(1, sizeof(*u));
	if (!u)
		return cai_fail(err, ENOMEM, "out of memory");
	*u = (struct proxy_udp){.proxy = p, .fd = fd, .six = six, .guest_port = guest_port};
	u->timer = loop_add_timer(p->loop, expire, u, err);
	u->source = u->timer ? loop_add_fd(p->loop, fd, EPOLLIN, on_datagram, u, err) : NULL;
	if (!u->source) {
		loop_del(u->timer);
		free(u);
		return -1;
	}
	u->next = p->udp;
	p->udp = u;
	return 0;
}

void proxy_udp_free(struct proxy *p)
{
	while (p->udp) {
		struct proxy_udp *u = p->udp;
		p->udp = u->next;
		while (u->first)
			flow_free(u->first);
		loop_del(u->source);
		loop_del(u->timer);
		free(u);
	}
}
