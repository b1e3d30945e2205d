/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the device and its host sockets.
 *
 * Packets from the guest are handled on the thread that notifies, sockets on the loop's thread; both under the device's lock. A
 * vCPU's thread must not touch the loop, so the device keeps an epoll set of its own (clients, the listening socket, a timer for
 * connections that linger, an eventfd for "look again") and the loop watches that one descriptor. Events name a slot and
 * its generation, never a pointer, so one that outlived its connection is recognised.
 *
 * Work is bounded per turn: what is left over raises the eventfd.
 */
#include "virtio/vsock_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"

#define EVENT_BATCH   64
#define ACCEPT_BATCH  64
#define NOTIFY_BUDGET 64 /* packets between two looks at who else wants the device */
#define LINE_MAX_LEN  32 /* "CONNECT 4294967295\n" and some */

/* Tokens of what is no connection; slots are smaller. */
enum { TOKEN_LISTEN = 0x10000, TOKEN_TIMER, TOKEN_KICK };

static struct virtio_vsock *to_vsock(struct virtio_dev *d)
{
	return container_of(d, struct virtio_vsock, dev);
}

void vsock_kick(struct virtio_vsock *v)
{
	uint64_t one = 1;
	ssize_t r = write(v->kick_fd, &one, sizeof(one));
	(void)r; /* a full counter already is a kick */
}

void vsock_arm_linger(struct virtio_vsock *v)
{
	const struct vsock_conn *c = TAILQ_FIRST(&v->linger);
	uint64_t at = c ? c->deadline : 0;
	struct itimerspec its = {
		.it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};
	timerfd_settime(v->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void vsock_refuse(struct virtio_vsock *v, const struct virtio_vsock_hdr *h)
{
	/* A reset is never answered. When the guest takes no packets, the rest go unanswered too: it cannot make us hold more. */
	if (h->op == VIRTIO_VSOCK_OP_RST || v->rst_n == VSOCK_MAX_RSTS)
		return;
	v->rst[(v->rst_first + v->rst_n++) % VSOCK_MAX_RSTS] =
		(struct vsock_rst){.src_cid = h->dst_cid, .src_port = h->dst_port, .dst_port = h->src_port, .type = h->type};
}

static bool take_tx(struct virtio_vsock *v)
{
	struct virtq *q = &v->dev.q[VSOCK_Q_TX];
	bool more = true, any = false;

	virtq_disable_notify(q, v->dev.mem);
	for (unsigned n = 0; n < NOTIFY_BUDGET; n++) {
		int r = virtq_pop(q, v->dev.mem, &v->chain);
		if (r == 0) {
			more = virtq_enable_notify(q, v->dev.mem);
			break;
		}
		if (r < 0 || vsock_packet(v) < 0) {
			virtio_dev_fail(&v->dev, "tx packet");
			return false;
		}
		virtq_push(q, v->dev.mem, v->chain.head, 0);
		any = true;
	}
	if (any)
		virtio_dev_used(&v->dev, q);
	return more;
}

static bool vsock_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_vsock *v = to_vsock(d);
	bool more = false;
	if (queue == VSOCK_Q_TX)
		more = take_tx(v);
	if (queue != VSOCK_Q_EVENT) /* its buffers are kept for a transport reset */
		vsock_pump(v);
	vsock_reap(v);
	return more;
}

static void vsock_activate(struct virtio_dev *d)
{
	struct virtio_vsock *v = to_vsock(d);
	vsock_pump(v);
	vsock_reap(v);
}

static void vsock_reset(struct virtio_dev *d)
{
	struct virtio_vsock *v = to_vsock(d);
	v->agent_ready = false;
	v->rst_first = v->rst_n = 0;
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++) {
		struct vsock_conn *c = v->conn[i];
		/* Those the guest never heard of wait for the next agent. */
		if (c && c->state != VSOCK_HELLO && c->state != VSOCK_WAITING)
			vsock_conn_guest_gone(c);
	}
	vsock_reap(v);
}

static void vsock_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	struct virtio_vsock *v = to_vsock(d);
	virtio_config_copy(&v->config, sizeof(v->config), off, buf, len);
}

static const struct virtio_dev_ops vsock_ops = {
	.name = "vsock",
	.device_id = VIRTIO_ID_VSOCK,
	.n_queues = VSOCK_N_QUEUES,
	.queue_size = {VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, 8},
	.config_read = vsock_config_read,
	.activate = vsock_activate,
	.notify = vsock_notify,
	.reset = vsock_reset,
	.save = vsock_save,
	.load = vsock_load,
	.resume = vsock_resume,
};

/* The port in "CONNECT <port>", n bytes without the newline; false when the line is anything else. */
static bool parse_connect(const char *line, size_t n, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	size_t at = sizeof(word) - 1;
	uint64_t v = 0;
	if (n <= at || n > at + 10 || memcmp(line, word, at) != 0)
		return false;
	for (; at < n; at++) {
		if (line[at] < '0' || line[at] > '9')
			return false;
		v = v * 10 + (uint64_t)(line[at] - '0');
	}
	*port = (uint32_t)v;
	return v < UINT32_MAX; /* the last one means "any" */
}

/* Looks for the client's line without taking what follows it: that is the guest's. */
static void hello(struct vsock_conn *c, uint32_t events)
{
	char line[LINE_MAX_LEN];
	uint32_t port;
	ssize_t n;
	do
		n = recv(c->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return; /* epoll tells when there is more */
	bool gone = events & (EPOLLHUP | EPOLLERR);
	const char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	if (!end || gone) {
		if (n <= 0 || n == sizeof(line) || gone || events & EPOLLRDHUP)
			vsock_conn_kill(c);
		return;
	}
	size_t len = (size_t)(end - line);
	if (recv(c->fd, line, len + 1, MSG_DONTWAIT) != (ssize_t)len + 1 || !parse_connect(line, len, &port)) {
		vsock_conn_kill(c);
		return;
	}
	c->handshake = true;
	c->readable = true; /* data may follow the line already; no further edge would tell */
	vsock_conn_start(c, port);
}

static void accept_clients(struct virtio_vsock *v)
{
	for (unsigned n = 0; v->listen_ready && v->n_free; n++) {
		if (n == ACCEPT_BATCH) {
			vsock_kick(v);
			return;
		}
		cleanup_close int fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0) {
			/* Out of descriptors: the client stays in the backlog until a connection has ended. */
			v->listen_ready = errno != EAGAIN;
			if (v->listen_ready)
				log_warn("vsock: cannot accept a client: %m");
			return;
		}
		/* Its first edge comes when it is added, so there is nothing to read here. */
		if (vsock_conn_new(v, fd))
			steal_fd(&fd);
	}
}

static void expire_linger(struct virtio_vsock *v)
{
	struct vsock_conn *c;
	uint64_t now = clock_mono_ns();
	while ((c = TAILQ_FIRST(&v->linger)) && c->deadline <= now)
		vsock_conn_abort(c);
	vsock_arm_linger(v);
}

static void dispatch(struct virtio_vsock *v, const struct epoll_event *ev)
{
	uint64_t count;
	ssize_t r;
	uint32_t slot = (uint32_t)ev->data.u64, gen = (uint32_t)(ev->data.u64 >> 32);
	switch (slot) {
	case TOKEN_LISTEN:
		v->listen_ready = true;
		return;
	case TOKEN_TIMER:
		r = read(v->timer_fd, &count, sizeof(count));
		(void)r;
		expire_linger(v);
		return;
	case TOKEN_KICK:
		r = read(v->kick_fd, &count, sizeof(count));
		(void)r;
		return;
	default:
		break;
	}
	struct vsock_conn *c = v->conn[slot];
	if (!c || v->generation[slot] != gen || c->state == VSOCK_DEAD)
		return;
	if (c->state == VSOCK_HELLO)
		hello(c, ev->events);
	else
		vsock_conn_event(c, ev->events);
}

void virtio_vsock_poll(struct virtio_vsock *v)
{
	struct epoll_event ev[EVENT_BATCH];

	virtio_dev_lock(&v->dev);
	/* Fetched under the lock, so that no event is older than what a vCPU's thread did to its connection meanwhile. */
	int n = epoll_wait(v->epfd, ev, EVENT_BATCH, 0);
	for (int i = 0; i < n; i++)
		dispatch(v, &ev[i]);
	accept_clients(v);
	vsock_pump(v);
	vsock_reap(v);
	bool tell = v->tell_ready;
	v->tell_ready = false;
	virtio_dev_unlock(&v->dev);

	if (tell && v->ready)
		v->ready(v->ready_ctx);
}

static void on_loop(void *ctx, uint32_t events)
{
	virtio_vsock_poll(ctx);
}

static int watch(struct virtio_vsock *v, int fd, uint32_t events, uint64_t token, struct cai_error *err)
{
	struct epoll_event ev = {.events = events, .data.u64 = token};
	if (epoll_ctl(v->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return cai_fail_errno(err, errno, "cannot watch a vsock descriptor");
	return 0;
}

static int set_up(struct virtio_vsock *v, int listen_fd, struct cai_error *err)
{
	v->epfd = epoll_create1(EPOLL_CLOEXEC);
	v->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	v->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->epfd < 0 || v->timer_fd < 0 || v->kick_fd < 0)
		return cai_fail_errno(err, errno, "cannot make the vsock device's descriptors");
	if (watch(v, v->timer_fd, EPOLLIN, TOKEN_TIMER, err) < 0 || watch(v, v->kick_fd, EPOLLIN, TOKEN_KICK, err) < 0)
		return -1;
	if (listen_fd >= 0) {
		int fl = fcntl(listen_fd, F_GETFL);
		if (fl < 0 || fcntl(listen_fd, F_SETFL, fl | O_NONBLOCK) < 0)
			return cai_fail_errno(err, errno, "cannot use the vsock listening socket");
		if (watch(v, listen_fd, EPOLLIN | EPOLLET, TOKEN_LISTEN, err) < 0)
			return -1;
	}
	if (v->loop) {
		v->source = loop_add_fd(v->loop, v->epfd, EPOLLIN, on_loop, v, err);
		if (!v->source)
			return -1;
	}
	v->listen_fd = listen_fd; /* ours from here on */
	return 0;
}

struct virtio_vsock *virtio_vsock_create(struct mem *mem, struct irq_line irq, struct loop *loop, int listen_fd,
					 virtio_vsock_ready_fn *ready, void *ready_ctx, struct cai_error *err)
{
	struct virtio_vsock *v = calloc(1, sizeof(*v));
	if (!v) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	v->loop = loop;
	v->ready = ready;
	v->ready_ctx = ready_ctx;
	v->epfd = v->listen_fd = v->timer_fd = v->kick_fd = -1;
	v->config.guest_cid = VIRTIO_VSOCK_GUEST_CID;
	TAILQ_INIT(&v->waiting);
	TAILQ_INIT(&v->announced);
	TAILQ_INIT(&v->linger);
	TAILQ_INIT(&v->dead);
	TAILQ_INIT(&v->ctl);
	TAILQ_INIT(&v->rd);
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++)
		v->free_slot[v->n_free++] = (uint16_t)(VIRTIO_VSOCK_MAX_CONNS - 1 - i);
	virtio_dev_init(&v->dev, &vsock_ops, BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC), mem, irq);
	if (set_up(v, listen_fd, err) < 0) {
		virtio_vsock_destroy(v);
		return NULL;
	}
	return v;
}

void virtio_vsock_destroy(struct virtio_vsock *v)
{
	if (!v)
		return;
	loop_del(v->source);
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++)
		if (v->conn[i])
			vsock_conn_kill(v->conn[i]);
	v->listen_ready = false;
	vsock_reap(v);
	int fds[] = {v->epfd, v->listen_fd, v->timer_fd, v->kick_fd};
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	virtio_dev_fini(&v->dev);
	free(v);
}

struct virtio_dev *virtio_vsock_dev(struct virtio_vsock *v)
{
	return &v->dev;
}

int virtio_vsock_open(struct virtio_vsock *v, uint32_t port, int fd, struct cai_error *err)
{
	/* Reading nothing tells a socket from anything else, with a call that the jail allows. */
	if (recv(fd, NULL, 0, MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN)
		return cai_fail_errno(err, errno, "a connection to the guest needs a stream socket");
	int fl = fcntl(fd, F_GETFL);
	if (fl < 0)
		return cai_fail_errno(err, errno, "cannot use the descriptor for a connection to the guest");
	if (fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot use the descriptor for a connection to the guest");

	virtio_dev_lock(&v->dev);
	struct vsock_conn *c = vsock_conn_new(v, fd);
	if (c) {
		vsock_conn_start(c, port);
		vsock_pump(v);
		vsock_reap(v);
	}
	virtio_dev_unlock(&v->dev);
	if (!c)
		return cai_fail(err, EMFILE, "too many connections to the guest (at most %d)", VIRTIO_VSOCK_MAX_CONNS);
	return 0;
}

bool virtio_vsock_agent_ready(struct virtio_vsock *v)
{
	virtio_dev_lock(&v->dev);
	bool ready = v->agent_ready;
	virtio_dev_unlock(&v->dev);
	return ready;
}

void virtio_vsock_get_stats(struct virtio_vsock *v, struct virtio_vsock_stats *s)
{
	virtio_dev_lock(&v->dev);
	*s = v->stats;
	s->conns = VIRTIO_VSOCK_MAX_CONNS - v->n_free;
	s->waiting = v->n_waiting;
	virtio_dev_unlock(&v->dev);
}
