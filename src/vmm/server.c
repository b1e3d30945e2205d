/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one request at a time, each answered before the next is read, so a state (NEW, CONFIGURED, RUNNING,
 * PAUSED) is all the memory there is. Anything that cannot be understood is answered with ERROR and changes nothing; a client that
 * floods without reading its replies fills its own socket and is dropped. The sockets are non-blocking, so no
 * client can hold up the monitor or another client.
 */
#include "vmm/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ENDED_WAIT_MS 1000
#define RETRY_NS        100000000u /* between attempts to accept a client when that fails */
#define REQUESTS_A_TURN 16 /* of one client, before others are looked at */

static void publish(struct server *s, struct server_client *c)
{
	if (s->fatal)
		atomic_store(&s->fatal->socket[c - s->client], c->fd);
}

static void drop(struct server *s, struct server_client *c)
{
	if (c->fd < 0)
		return;
	int fd = c->fd;
	loop_del(c->source);
	c->source = NULL;
	c->fd = -1;
	publish(s, c);
	close(fd);
	if (s->listen_fd >= 0)
		return;
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS; i++)
		if (s->client[i].fd >= 0)
			return;
	s->ops->stop(s->ctx, true);
}

static void send_packet(struct server *s, struct server_client *c, const struct buf *b)
{
	if (c->fd >= 0 && (b->failed || control_send(c->fd, b->p, b->len, NULL, 0) < 0))
		drop(s, c);
}

static void reply_ok(struct server *s, struct server_client *c, uint32_t seq)
{
	struct buf b = {0};
	control_put(&b, CONTROL_OK, seq);
	send_packet(s, c, &b);
	buf_free(&b);
}

static void reply_error(struct server *s, struct server_client *c, uint32_t seq, const struct cai_error *err)
{
	struct buf b = {0};
	control_put_error(&b, seq, (uint32_t)err->errnum, err->text);
	send_packet(s, c, &b);
	buf_free(&b);
}

static void reply(struct server *s, struct server_client *c, uint32_t seq, int rc, const struct cai_error *err)
{
	if (rc < 0)
		reply_error(s, c, seq, err);
	else
		reply_ok(s, c, seq);
}

static const char *state_name(enum control_state state)
{
	switch (state) {
	case CONTROL_STATE_NEW:
		return "not configured";
	case CONTROL_STATE_CONFIGURED:
		return "not started";
	case CONTROL_STATE_RUNNING:
		return "running";
	case CONTROL_STATE_PAUSED:
		return "paused";
	}
	return "in no known state";
}

/* A request that fits one state only. */
static int must_be(struct server *s, enum control_state state, const char *request, struct cai_error *err)
{
	if (s->state == state)
		return 0;
	return cai_fail(err, EINVAL, "%s is not possible: the guest is %s", request, state_name(s->state));
}

static void on_configure(struct server *s, struct server_client *c, uint32_t seq, struct buf_reader *r, int *fds, unsigned n)
{
	struct control_config cfg;
	struct cai_error err;
	if (must_be(s, CONTROL_STATE_NEW, "CONFIGURE", &err) < 0) {
		for (unsigned i = 0; i < n; i++)
			close(fds[i]);
		reply_error(s, c, seq, &err);
		return;
	}
	if (control_get_config(r, fds, n, &cfg, &err) < 0) {
		reply_error(s, c, seq, &err);
		return;
	}
	int rc = 0;
	if (cfg.fd[CONTROL_FD_LISTEN] >= 0)
		rc = server_listen(s, cfg.fd[CONTROL_FD_LISTEN], &err);
	if (rc == 0) {
		cfg.fd[CONTROL_FD_LISTEN] = -1;
		rc = s->ops->configure(s->ctx, &cfg, &err);
	} else {
		control_config_free(&cfg);
	}
	if (rc == 0)
		s->state = CONTROL_STATE_CONFIGURED;
	reply(s, c, seq, rc, &err);
	if (rc < 0) {
		/* Half-built and perhaps half-jailed: a new attempt takes a new monitor. */
		s->failed = true;
		loop_stop(s->loop);
	}
}

static void on_query(struct server *s, struct server_client *c, uint32_t seq)
{
	struct control_status st = {0};
	if (s->state != CONTROL_STATE_NEW)
		s->ops->query(s->ctx, &st);
	st.state = s->state;
	st.ready = s->ready;
	struct buf b = {0};
	control_put_status(&b, seq, &st);
	send_packet(s, c, &b);
	buf_free(&b);
}

static void transition(struct server *s, struct server_client *c, uint32_t seq, enum control_state from, enum control_state to,
		       const char *request, int (*op)(void *, struct cai_error *))
{
	struct cai_error err;
	int rc = must_be(s, from, request, &err);
	if (rc == 0) {
		rc = op(s->ctx, &err);
		if (rc == 0)
			s->state = to;
	}
	reply(s, c, seq, rc, &err);
}

static void on_snapshot(struct server *s, struct server_client *c, uint32_t seq, struct buf_reader *r, int *fds, unsigned n)
{
	struct control_snapshot q;
	struct cai_error err;
	int rc = control_get_snapshot(r, fds, n, &q, &err);
	if (rc < 0) {
		reply_error(s, c, seq, &err);
		return;
	}
	const bool running = s->state == CONTROL_STATE_RUNNING;
	if (!running)
		rc = must_be(s, CONTROL_STATE_PAUSED, "SNAPSHOT", &err);
	if (rc == 0)
		rc = s->ops->snapshot(s->ctx, &q, running, &err);
	close(q.state_fd);
	close(q.memory_fd);
	if (q.code_fd >= 0)
		close(q.code_fd);
	reply(s, c, seq, rc, &err);
	if (rc == 0 && (q.flags & CONTROL_SNAPSHOT_STOP))
		s->ops->stop(s->ctx, false);
}

static void on_attach(struct server *s, struct server_client *c, uint32_t seq, struct buf_reader *r, int *fds, unsigned n)
{
	struct control_attach a;
	struct cai_error err;
	int rc = control_get_attach(r, fds, n, &a, &err);
	if (rc == 0) {
		if (s->state == CONTROL_STATE_NEW)
			rc = must_be(s, CONTROL_STATE_RUNNING, "ATTACH_DISK", &err);
		else
			rc = s->ops->attach(s->ctx, &a, &err);
		if (rc < 0)
			close(a.fd);
	}
	reply(s, c, seq, rc, &err);
}

/* One packet. fds belong to this function. */
static void on_packet(struct server *s, struct server_client *c, size_t len, int *fds, unsigned n_fds)
{
	struct buf_reader r = buf_reader(s->packet, len);
	struct control_header h = {0};
	struct cai_error err;
	int rc = control_get_header(&r, &h, &err);
	if (rc == 0 && h.type == CONTROL_CONFIGURE) {
		on_configure(s, c, h.seq, &r, fds, n_fds);
		return;
	}
	if (rc == 0 && h.type == CONTROL_SNAPSHOT) {
		on_snapshot(s, c, h.seq, &r, fds, n_fds);
		return;
	}
	if (rc == 0 && h.type == CONTROL_ATTACH_DISK) {
		on_attach(s, c, h.seq, &r, fds, n_fds);
		return;
	}
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
	if (rc == 0 && n_fds)
		rc = cai_fail(&err, EINVAL, "request %u carries no descriptors", h.type);
	if (rc == 0 && !buf_done(&r))
		rc = cai_fail(&err, EINVAL, "malformed control packet: request %u has a body", h.type);
	if (rc < 0) {
		reply_error(s, c, h.seq, &err);
		return;
	}
	switch (h.type) {
	case CONTROL_START:
		transition(s, c, h.seq, CONTROL_STATE_CONFIGURED, CONTROL_STATE_RUNNING, "START", s->ops->start);
		break;
	case CONTROL_PAUSE:
		transition(s, c, h.seq, CONTROL_STATE_RUNNING, CONTROL_STATE_PAUSED, "PAUSE", s->ops->pause);
		break;
	case CONTROL_RESUME:
		transition(s, c, h.seq, CONTROL_STATE_PAUSED, CONTROL_STATE_RUNNING, "RESUME", s->ops->resume);
		break;
	case CONTROL_QUERY:
		on_query(s, c, h.seq);
		break;
	case CONTROL_STOP:
		reply_ok(s, c, h.seq);
		s->ops->stop(s->ctx, false);
		break;
	default:
		cai_fail(&err, ENOSYS, "the monitor knows no request %u", h.type);
		reply_error(s, c, h.seq, &err);
	}
}

static void on_client(void *ctx, uint32_t events)
{
	struct server_client *c = ctx;
	struct server *s = c->server;
	for (unsigned i = 0; i < REQUESTS_A_TURN && c->fd >= 0 && !s->failed; i++) {
		int fds[CONTROL_MAX_FDS];
		unsigned n_fds = CONTROL_MAX_FDS;
		long n = control_recv(c->fd, s->packet, CONTROL_MAX_PACKET, fds, &n_fds);
		if (n < 0 && errno == EMSGSIZE) {
			struct cai_error err;
			cai_fail(&err, EMSGSIZE, "malformed control packet: longer than %u bytes or with more than %u descriptors",
				 CONTROL_MAX_PACKET, CONTROL_MAX_FDS);
			reply_error(s, c, 0, &err);
		} else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			return;
		} else if (n <= 0) {
			/* An empty packet looks like the end; nobody sends one. */
			for (unsigned k = 0; n == 0 && k < n_fds; k++)
				close(fds[k]);
			drop(s, c);
		} else {
			on_packet(s, c, (size_t)n, fds, n_fds);
		}
	}
}

static int add_client(struct server *s, int fd, struct cai_error *err)
{
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS; i++) {
		struct server_client *c = &s->client[i];
		if (c->fd >= 0)
			continue;
		c->source = loop_add_fd(s->loop, fd, EPOLLIN, on_client, c, err);
		if (!c->source)
			return -1;
		c->fd = fd;
		publish(s, c);
		return 0;
	}
	return cai_fail(err, EMFILE, "the monitor serves at most %u control clients", SERVER_MAX_CLIENTS);
}

static void on_listener(void *ctx, uint32_t events)
{
	struct server *s = ctx;
	cleanup_close int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		/* Out of descriptors, most likely, and asked again at once as long as a client waits: come back later. */
		loop_set_events(s->listen_source, 0);
		loop_timer_set(s->listen_timer, clock_mono_ns() + RETRY_NS);
		return;
	}
	struct cai_error err;
	if (add_client(s, fd, &err) < 0) {
		struct buf b = {0};
		control_put_error(&b, 0, (uint32_t)err.errnum, err.text);
		if (!b.failed)
			control_send(fd, b.p, b.len, NULL, 0);
		buf_free(&b);
		return;
	}
	steal_fd(&fd);
}

static void on_retry(void *ctx)
{
	struct server *s = ctx;
	loop_set_events(s->listen_source, EPOLLIN);
}

static bool is_listener(int fd)
{
	int type = 0, listening = 0;
	socklen_t n = sizeof(int);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) == 0 && listening;
}

int server_listen(struct server *s, int fd, struct cai_error *err)
{
	if (!is_listener(fd))
		return cai_fail(err, EINVAL, "the control listener is not a listening seqpacket socket");
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot use the control listener");
	s->listen_timer = loop_add_timer(s->loop, on_retry, s, err);
	if (!s->listen_timer)
		return -1;
	s->listen_source = loop_add_fd(s->loop, fd, EPOLLIN, on_listener, s, err);
	if (!s->listen_source)
		return -1;
	s->listen_fd = fd;
	return 0;
}

int server_init(struct server *s, struct loop *loop, int fd, struct fatal *fatal, const struct server_ops *ops, void *ctx,
		struct cai_error *err)
{
	*s = (struct server){.loop = loop, .ops = ops, .ctx = ctx, .fatal = fatal, .listen_fd = -1, .state = CONTROL_STATE_NEW};
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS; i++)
		s->client[i] = (struct server_client){.server = s, .fd = -1};
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot use the control socket");
	s->packet = malloc(CONTROL_MAX_PACKET);
	if (!s->packet)
		return cai_fail(err, ENOMEM, "out of memory");
	if (add_client(s, fd, err) < 0) {
		free(s->packet);
		s->packet = NULL;
		return -1;
	}
	return 0;
}

void server_fini(struct server *s)
{
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS; i++) {
		struct server_client *c = &s->client[i];
		if (c->fd < 0)
			continue;
		loop_del(c->source);
		close(c->fd);
		c->fd = -1;
		publish(s, c);
	}
	loop_del(s->listen_source);
	loop_del(s->listen_timer);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	free(s->packet);
	*s = (struct server){.listen_fd = -1};
}

void server_send_ready(struct server *s)
{
	if (s->ready)
		return;
	s->ready = true;
	struct buf b = {0};
	control_put(&b, CONTROL_READY, 0);
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS; i++)
		send_packet(s, &s->client[i], &b);
	buf_free(&b);
}

void server_send_ended(struct server *s, const struct control_ended *e)
{
	struct buf b = {0};
	control_put_ended(&b, e);
	for (unsigned i = 0; i < SERVER_MAX_CLIENTS && !b.failed; i++) {
		int fd = s->client[i].fd;
		if (fd < 0 || control_send(fd, b.p, b.len, NULL, 0) == 0 || errno != EAGAIN)
			continue;
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		if (poll(&p, 1, ENDED_WAIT_MS) > 0)
			control_send(fd, b.p, b.len, NULL, 0);
	}
	buf_free(&b);
}

void server_refuse(int fd, const struct cai_error *why)
{
	int fds[CONTROL_MAX_FDS];
	unsigned n_fds = CONTROL_MAX_FDS;
	uint32_t seq = 0;
	uint8_t *packet = malloc(CONTROL_MAX_PACKET);
	long n = packet ? control_recv(fd, packet, CONTROL_MAX_PACKET, fds, &n_fds) : -1;
	if (n > 0) {
		struct buf_reader r = buf_reader(packet, (size_t)n);
		struct control_header h;
		if (control_get_header(&r, &h, NULL) == 0)
			seq = h.seq;
		for (unsigned i = 0; i < n_fds; i++)
			close(fds[i]);
	}
	free(packet);
	struct buf b = {0};
	control_put_error(&b, seq, (uint32_t)why->errnum, why->text);
	if (!b.failed)
		control_send(fd, b.p, b.len, NULL, 0);
	buf_free(&b);
}
