/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A question about a name without a dot is looked for among the links of the router: each has an alias that
 * says what its sandbox is called, and a number that is its address. There is no list to keep: a member that
 * is gone has no link. The links are read again at most five times a second.
 *
 * Everything else is carried to a server with an id of our own, on a socket chosen at random, and remembered
 * in a table of fixed size. A response counts when it comes from the server (the socket is connected), with
 * the id, and with the question that was asked. After two seconds without one the next server is asked; after
 * six the question is forgotten, and the sandbox asks again.
 *
 * A question that came over TCP is answered over TCP and is asked of the server as a datagram: for names
 * alone that is enough, and it keeps connections to the host out of a process that reads hostile messages.
 */
#include "net/helper/resolver.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/util.h"
#include "net/helper/dns_message.h"
#include "net/rtnl.h"

#define MAX_PENDING 256u
#define MAX_TCP	    16u
#define QUERY_MAX   4096u
#define ANSWER_MAX  65535u
#define MEMBERS_MAX 4096u
#define FRESH_NS    200000000ull
#define NEXT_NS	    2000000000ull
#define FORGET_NS   6000000000ull
#define TCP_IDLE_NS 10000000000ull
#define TTL	    5u
#define BURST	    32

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct pending {
	bool used;
	uint16_t id, client_id;
	unsigned server;
	uint64_t asked, first;
	unsigned tcp; /* 1 + index of the connection that asked; 0: a datagram from `client` */
	uint32_t tcp_serial;
	union address client;
	socklen_t client_len;
	uint8_t *query;
	uint16_t query_len, question_len;
};

struct tcp_conn {
	struct resolver *resolver;
	int fd; /* -1: free */
	struct loop_source *source;
	uint32_t serial;
	uint64_t used;
	uint8_t in[2 + QUERY_MAX];
	size_t n_in;
};

struct member {
	unsigned number;
	char names[3][72]; /* id, name, host name; "-": none */
};

struct resolver {
	struct loop *loop;
	struct resolver_options o;
	struct loop_source *timer;
	struct pending pending[MAX_PENDING];
	struct tcp_conn tcp[MAX_TCP];
	struct loop_source *sources[2 + RESOLVER_SERVERS * RESOLVER_SOCKETS];
	unsigned n_sources;
	uint32_t serial;
	struct member *members;
	size_t n_members;
	uint64_t members_read;
	uint8_t in[ANSWER_MAX + 1], out[2 + ANSWER_MAX];
};

/* Who asked: a datagram's sender or a connection. */
struct asker {
	struct tcp_conn *tcp; /* NULL: client */
	union address client;
	socklen_t client_len;
};

static void tcp_close(struct tcp_conn *c)
{
	loop_del(c->source);
	c->source = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* msg has two bytes of room in front of it, for the length over TCP. */
static void reply(struct resolver *r, const struct asker *a, uint8_t *msg, size_t n)
{
	if (!a->tcp) {
		(void)!sendto(r->o.udp_fd, msg, n, MSG_DONTWAIT | MSG_NOSIGNAL, &a->client.sa, a->client_len);
		return;
	}
	msg[-2] = (uint8_t)(n >> 8);
	msg[-1] = (uint8_t)n;
	/* Whoever does not read its answers loses its connection. */
	if (send(a->tcp->fd, msg - 2, n + 2, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)(n + 2))
		tcp_close(a->tcp);
}

static int one_link(const struct rtnl_link *l, void *ctx)
{
	struct resolver *r = ctx;
	struct member m = {.number = 0};
	if (l->group != r->o.group || sscanf(l->name, SANDBOX_PREFIX "%u", &m.number) != 1)
		return 0;
	if (r->n_members >= MEMBERS_MAX ||
	    sscanf(l->alias, "%71s %71s %71s", m.names[0], m.names[1], m.names[2]) < 1)
		return 0;
	for (unsigned k = 0; k < 3; k++)
		for (char *p = m.names[k]; *p; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
	r->members[r->n_members++] = m;
	return 0;
}

static void read_members(struct resolver *r)
{
	uint64_t now = clock_mono_ns();
	if (r->o.netlink_fd < 0 || (r->members_read && now - r->members_read < FRESH_NS))
		return;
	if (!r->members)
		r->members = malloc(MEMBERS_MAX * sizeof(*r->members));
	if (!r->members)
		return;
	r->n_members = 0;
	r->members_read = now;
	rtnl_each_link(r->o.netlink_fd, one_link, r, NULL);
}

static bool called(const struct member *m, const char *name)
{
	for (unsigned k = 0; k < 3; k++)
		if (m->names[k][0] && strcmp(m->names[k], "-") != 0 && strcmp(m->names[k], name) == 0)
			return true;
	/* The first 12 digits of an id are a name too, as with docker. */
	return strlen(name) == 12 && strncmp(m->names[0], name, 12) == 0;
}

/* Answers from the members; 0: not theirs to answer. */
static size_t answer_name(struct resolver *r, const uint8_t *p, const struct dns_question *q, uint8_t *out)
{
	uint8_t data[16 * 16];
	unsigned n = 0, size = q->type == DNS_AAAA ? 16 : 4;
	bool known = false;
	if (q->class != DNS_IN || !q->name[0] || strchr(q->name, '.'))
		return 0;
	read_members(r);
	for (size_t k = 0; k < r->n_members && n < 16; k++) {
		if (!called(&r->members[k], q->name))
			continue;
		known = true;
		if (q->type != DNS_A && (q->type != DNS_AAAA || !r->o.has6))
			continue;
		struct ip_addr a = q->type == DNS_A ? plan_addr4(&r->o.plan, r->members[k].number)
						    : plan_addr6(&r->o.plan, r->members[k].number);
		memcpy(data + size * n++, a.b, size);
	}
	return known ? dns_respond(p, q, DNS_NOERROR, data, size, n, TTL, out, QUERY_MAX) : 0;
}

static size_t answer_reverse(struct resolver *r, const uint8_t *p, const struct dns_question *q, uint8_t *out)
{
	uint8_t addr[16], wire[80];
	unsigned n;
	if (q->class != DNS_IN || q->type != DNS_PTR || (n = dns_reverse_address(q->name, addr)) == 0)
		return 0;
	const uint8_t *pool = n == 4 ? r->o.plan.pool4.b : r->o.plan.pool6.b;
	if (memcmp(addr, pool, n - 2) != 0)
		return 0;
	unsigned number = (unsigned)addr[n - 2] << 8 | addr[n - 1];
	read_members(r);
	for (size_t k = 0; k < r->n_members; k++) {
		const struct member *m = &r->members[k];
		if (m->number != number)
			continue;
		size_t len =
		    dns_put_name(strcmp(m->names[1], "-") != 0 && m->names[1][0] ? m->names[1] : m->names[0],
				 wire, sizeof(wire));
		return len ? dns_respond(p, q, DNS_NOERROR, wire, len, 1, TTL, out, QUERY_MAX) : 0;
	}
	/* An address of the pool is nobody's outside. */
	return dns_respond(p, q, DNS_NXDOMAIN, NULL, 0, 0, 0, out, QUERY_MAX);
}

static void forget(struct pending *e)
{
	free(e->query);
	*e = (struct pending){.used = false};
}

static void ask_server(struct resolver *r, struct pending *e)
{
	uint8_t which = 0;
	(void)!getrandom(&which, 1, GRND_NONBLOCK);
	e->asked = clock_mono_ns();
	(void)!send(r->o.server_fd[e->server][which % RESOLVER_SOCKETS], e->query, e->query_len,
		    MSG_DONTWAIT | MSG_NOSIGNAL);
}

static struct pending *by_id(struct resolver *r, uint16_t id)
{
	for (unsigned k = 0; k < MAX_PENDING; k++)
		if (r->pending[k].used && r->pending[k].id == id)
			return &r->pending[k];
	return NULL;
}

/* A free place, or that of the question that has waited longest. */
static struct pending *place(struct resolver *r)
{
	struct pending *oldest = &r->pending[0];
	for (unsigned k = 0; k < MAX_PENDING; k++) {
		if (!r->pending[k].used)
			return &r->pending[k];
		if (r->pending[k].first < oldest->first)
			oldest = &r->pending[k];
	}
	forget(oldest);
	return oldest;
}

static void forward(struct resolver *r, const uint8_t *p, size_t n, const struct dns_question *q,
		    const struct asker *a)
{
	struct pending *e = place(r);
	uint16_t id;
	do
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return;
	while (by_id(r, id));
	uint8_t *copy = malloc(n);
	if (!copy)
		return;
	memcpy(copy, p, n);
	*e = (struct pending){.used = true,
			      .id = id,
			      .client_id = (uint16_t)(p[0] << 8 | p[1]),
			      .first = clock_mono_ns(),
			      .client = a->client,
			      .client_len = a->client_len,
			      .query = copy,
			      .query_len = (uint16_t)n,
			      .question_len = (uint16_t)(q->end - DNS_HEADER)};
	if (a->tcp) {
		e->tcp = 1 + (unsigned)(a->tcp - r->tcp);
		e->tcp_serial = a->tcp->serial;
	}
	copy[0] = (uint8_t)(id >> 8);
	copy[1] = (uint8_t)id;
	ask_server(r, e);
	loop_timer_set(r->timer, clock_mono_ns() + NEXT_NS / 4);
}

static void on_query(struct resolver *r, const uint8_t *p, size_t n, const struct asker *a)
{
	struct dns_question q;
	uint8_t *out = r->out + 2;
	if (n > QUERY_MAX || !dns_parse_query(p, n, &q))
		return;
	size_t len = answer_name(r, p, &q, out);
	if (len == 0)
		len = answer_reverse(r, p, &q, out);
	if (len == 0 && r->o.n_servers == 0)
		len = dns_respond(p, &q, strchr(q.name, '.') ? DNS_REFUSED : DNS_NXDOMAIN, NULL, 0, 0, 0, out,
				  QUERY_MAX);
	if (len)
		reply(r, a, out, len);
	else
		forward(r, p, n, &q, a);
}

static void on_udp(void *ctx, uint32_t events)
{
	struct resolver *r = ctx;
	for (int k = 0; k < BURST; k++) {
		struct asker a = {.client_len = sizeof(a.client)};
		ssize_t n =
		    recvfrom(r->o.udp_fd, r->in, sizeof(r->in), MSG_DONTWAIT, &a.client.sa, &a.client_len);
		if (n < 0)
			return;
		on_query(r, r->in, (size_t)n, &a);
	}
}

static void on_answer(struct resolver *r, unsigned server, const uint8_t *p, size_t n)
{
	if (n < DNS_HEADER || n > ANSWER_MAX)
		return;
	struct pending *e = by_id(r, (uint16_t)(p[0] << 8 | p[1]));
	if (!e || e->server != server || !dns_is_response(p, n, e->query + DNS_HEADER, e->question_len))
		return;
	struct asker a = {.client = e->client, .client_len = e->client_len};
	if (e->tcp) {
		a.tcp = &r->tcp[e->tcp - 1];
		if (a.tcp->fd < 0 || a.tcp->serial != e->tcp_serial) {
			forget(e);
			return;
		}
	}
	memcpy(r->out + 2, p, n);
	r->out[2] = (uint8_t)(e->client_id >> 8);
	r->out[3] = (uint8_t)e->client_id;
	forget(e);
	reply(r, &a, r->out + 2, n);
}

static void on_servers(void *ctx, uint32_t events)
{
	struct resolver *r = ctx;
	for (unsigned s = 0; s < r->o.n_servers; s++)
		for (unsigned k = 0; k < RESOLVER_SOCKETS; k++) {
			ssize_t n;
			for (int burst = 0; burst < BURST; burst++) {
				n = recv(r->o.server_fd[s][k], r->in, sizeof(r->in), MSG_DONTWAIT);
				if (n < 0)
					break; /* nothing, or an ICMP error: the next server is tried when it
						  is time */
				on_answer(r, s, r->in, (size_t)n);
			}
		}
}

static void on_timer(void *ctx)
{
	struct resolver *r = ctx;
	uint64_t now = clock_mono_ns();
	bool more = false;
	for (unsigned k = 0; k < MAX_PENDING; k++) {
		struct pending *e = &r->pending[k];
		if (!e->used)
			continue;
		if (now - e->first >= FORGET_NS) {
			forget(e);
			continue;
		}
		more = true;
		if (now - e->asked >= NEXT_NS) {
			e->server = (e->server + 1) % r->o.n_servers;
			ask_server(r, e);
		}
	}
	for (unsigned k = 0; k < MAX_TCP; k++) {
		if (r->tcp[k].fd < 0)
			continue;
		more = true;
		if (now - r->tcp[k].used >= TCP_IDLE_NS)
			tcp_close(&r->tcp[k]);
	}
	if (more)
		loop_timer_set(r->timer, now + NEXT_NS / 4);
}

static void on_tcp(void *ctx, uint32_t events)
{
	struct tcp_conn *c = ctx;
	ssize_t n = recv(c->fd, c->in + c->n_in, sizeof(c->in) - c->n_in, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			tcp_close(c);
		return;
	}
	c->n_in += (size_t)n;
	c->used = clock_mono_ns();
	while (c->fd >= 0 && c->n_in >= 2) {
		size_t len = (size_t)c->in[0] << 8 | c->in[1];
		struct asker a = {.tcp = c};
		if (len > QUERY_MAX || len < DNS_HEADER) {
			tcp_close(c);
			return;
		}
		if (c->n_in < 2 + len)
			return;
		on_query(c->resolver, c->in + 2, len, &a);
		memmove(c->in, c->in + 2 + len, c->n_in - 2 - len);
		c->n_in -= 2 + len;
	}
}

static void on_listener(void *ctx, uint32_t events)
{
	struct resolver *r = ctx;
	int fd = accept4(r->o.tcp_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct tcp_conn *c = NULL;
	for (unsigned k = 0; k < MAX_TCP; k++)
		if (r->tcp[k].fd < 0 || !c || (c->fd >= 0 && r->tcp[k].used < c->used))
			c = &r->tcp[k];
	/* The one that has rested longest makes room. */
	tcp_close(c);
	*c = (struct tcp_conn){.resolver = r, .fd = fd, .serial = ++r->serial, .used = clock_mono_ns()};
	c->source = loop_add_fd(r->loop, fd, EPOLLIN, on_tcp, c, NULL);
	if (!c->source)
		tcp_close(c);
	loop_timer_set(r->timer, clock_mono_ns() + NEXT_NS / 4);
}

static int watch(struct resolver *r, int fd, loop_fd_fn *fn, struct cai_error *err)
{
	struct loop_source *s = loop_add_fd(r->loop, fd, EPOLLIN, fn, r, err);
	if (!s)
		return -1;
	r->sources[r->n_sources++] = s;
	return 0;
}

struct resolver *resolver_new(struct loop *l, const struct resolver_options *o, struct cai_error *err)
{
	struct resolver *r = calloc(1, sizeof(*r));
	if (!r) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->loop = l;
	r->o = *o;
	for (unsigned k = 0; k < MAX_TCP; k++)
		r->tcp[k].fd = -1;
	r->timer = loop_add_timer(l, on_timer, r, err);
	int result = r->timer ? watch(r, o->udp_fd, on_udp, err) : -1;
	if (result == 0 && o->tcp_fd >= 0)
		result = watch(r, o->tcp_fd, on_listener, err);
	for (unsigned s = 0; s < o->n_servers; s++)
		for (unsigned k = 0; k < RESOLVER_SOCKETS && result == 0; k++)
			result = watch(r, o->server_fd[s][k], on_servers, err);
	if (result < 0) {
		resolver_free(r);
		return NULL;
	}
	return r;
}

void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	for (unsigned k = 0; k < MAX_TCP; k++)
		tcp_close(&r->tcp[k]);
	for (unsigned k = 0; k < MAX_PENDING; k++)
		forget(&r->pending[k]);
	for (unsigned k = 0; k < r->n_sources; k++)
		loop_del(r->sources[k]);
	loop_del(r->timer);
	free(r->members);
	free(r);
}
