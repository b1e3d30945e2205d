/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one connection, and the way from the guest to the host.
 *
 * HELLO -> (WAITING ->) CONNECTING -> OPEN, and from there two ends that go separately. When the client is gone the guest is
 * told with SHUTDOWN and the connection lingers until the guest resets it, or a time is over. When the guest is gone
 * (SHUTDOWN both ways, or RST) the connection drains: what the guest sent is ours to deliver, however slow the client.
 *
 * Data from the guest goes to the socket straight from guest RAM; what the socket does not take is copied to a ring as large
 * as the credit we gave, so a guest that keeps to its credit can always be taken at its word, and one that does not is
 * reset. Credit comes back as the client reads.
 *
 * Sockets are watched edge-triggered, once and for both directions; `readable` and out_len remember what is possible. So
 * a socket we cannot serve costs nothing, not even when it has hung up.
 *
 * A connection that ends is only marked dead; vsock_reap() frees it when no caller holds it any more.
 */
#include "virtio/vsock_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

#define HDR      ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define SHUT_ALL ((uint32_t)(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))

/* Host ports of our connections: 01 | 20 bits of the slot's generation | 10 bits of slot. */
#define PORT_TAG   0x40000000u
#define SLOT_BITS  10
_Static_assert(VIRTIO_VSOCK_MAX_CONNS == 1 << SLOT_BITS, "a slot fills its bits of the port");

struct vsock_conn *vsock_conn_new(struct virtio_vsock *v, int fd)
{
	if (!v->n_free)
		return NULL;
	struct vsock_conn *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->v = v;
	c->fd = fd;
	c->slot = v->free_slot[v->n_free - 1];
	c->host_port = PORT_TAG | (v->generation[c->slot] & 0xfffff) << SLOT_BITS | c->slot;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				 .data.u64 = (uint64_t)v->generation[c->slot] << 32 | c->slot};
	if (fd >= 0 && epoll_ctl(v->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		free(c);
		return NULL;
	}
	v->n_free--;
	v->conn[c->slot] = c;
	return c;
}

static void leave_state(struct vsock_conn *c)
{
	struct virtio_vsock *v = c->v;
	if (c->state == VSOCK_WAITING) {
		TAILQ_REMOVE(&v->waiting, c, state_link);
		v->n_waiting--;
	} else if (c->state == VSOCK_LINGER) {
		TAILQ_REMOVE(&v->linger, c, state_link);
	} else if (c->state == VSOCK_OPEN && c->from_guest) {
		TAILQ_REMOVE(&v->announced, c, state_link);
		v->n_announced--;
	}
}

/* Takes what the client sent and nobody will read: closing over it would show the client a reset instead of the end. */
static void discard_input(int fd)
{
	char junk[4096];
	ssize_t n;
	shutdown(fd, SHUT_RDWR); /* nothing can be added from here on, so this ends */
	do
		n = recv(fd, junk, sizeof(junk), MSG_DONTWAIT);
	while (n > 0 || (n < 0 && errno == EINTR));
}

void vsock_conn_drop_host(struct vsock_conn *c)
{
	if (c->fd >= 0) {
		discard_input(c->fd);
		/* Removed by hand: a copy of the descriptor in another process would keep the entry alive. */
		epoll_ctl(c->v->epfd, EPOLL_CTL_DEL, c->fd, NULL);
		close(c->fd);
	}
	c->fd = -1;
	free(c->out);
	c->out = NULL;
	c->out_len = 0;
	c->fwd_cnt = c->rx_cnt;
	c->host_gone = true;
	c->readable = false;
}

void vsock_conn_kill(struct vsock_conn *c)
{
	if (c->state == VSOCK_DEAD)
		return;
	vsock_conn_drop_host(c);
	leave_state(c);
	c->state = VSOCK_DEAD;
	c->pend = 0;
	TAILQ_INSERT_TAIL(&c->v->dead, c, state_link);
	vsock_conn_update(c);
}

void vsock_reap(struct virtio_vsock *v)
{
	struct vsock_conn *c;
	while ((c = TAILQ_FIRST(&v->dead))) {
		TAILQ_REMOVE(&v->dead, c, state_link);
		v->conn[c->slot] = NULL;
		v->generation[c->slot]++;
		/* The slot used last is taken last: a port comes back as late as possible. */
		memmove(&v->free_slot[1], &v->free_slot[0], v->n_free * sizeof(v->free_slot[0]));
		v->free_slot[0] = (uint16_t)c->slot;
		v->n_free++;
		free(c);
		if (v->listen_ready)
			vsock_kick(v); /* a client could not be taken before */
	}
}

/* Leaves the guest's side: nothing more comes from it or goes to it, but perhaps an RST. */
static void detach(struct vsock_conn *c, uint32_t pend)
{
	leave_state(c);
	c->state = VSOCK_DRAIN;
	c->pend = pend;
	c->readable = false;
	vsock_conn_update(c);
}

void vsock_conn_abort(struct vsock_conn *c)
{
	vsock_conn_drop_host(c);
	c->v->stats.resets++;
	detach(c, VSOCK_PEND_RST);
}

void vsock_conn_guest_gone(struct vsock_conn *c)
{
	if (c->state == VSOCK_OPEN) {
		detach(c, 0);
	} else if (c->state == VSOCK_DRAIN) {
		c->pend = 0;
		vsock_conn_update(c);
	} else {
		vsock_conn_kill(c);
	}
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t unread = c->tx_cnt - c->peer_fwd_cnt;
	if (c->unread_n == VSOCK_MAX_UNREAD || unread >= c->peer_buf_alloc)
		return 0;
	return c->peer_buf_alloc - unread;
}

void vsock_conn_update(struct vsock_conn *c)
{
	struct virtio_vsock *v = c->v;

	if (c->hup && c->guest_no_recv && !c->host_eof)
		vsock_conn_host_eof(c); /* what is unread stays so */
	if (c->state == VSOCK_OPEN && c->shut_told == SHUT_ALL) {
		vsock_conn_drop_host(c);
		leave_state(c);
		c->state = VSOCK_LINGER;
		c->deadline = clock_mono_ns() + VSOCK_LINGER_NS;
		TAILQ_INSERT_TAIL(&v->linger, c, state_link);
		vsock_arm_linger(v);
	}
	if (c->state == VSOCK_DRAIN && !c->out_len) {
		vsock_conn_drop_host(c); /* at once, even if the guest takes its RST late or never */
		if (!(c->pend & VSOCK_PEND_RST)) {
			vsock_conn_kill(c); /* comes back here */
			return;
		}
	}

	bool open = c->state == VSOCK_OPEN;
	bool has_data = open && c->readable && !c->host_eof && !c->guest_no_recv;
	bool rd = has_data && vsock_conn_credit(c);
	if (has_data && !rd && !c->asked) {
		c->asked = true;
		c->pend |= VSOCK_PEND_CREDIT_REQUEST;
	}
	/* Half of what we gave is free again and the guest does not know. */
	if (open && !c->guest_no_send && c->fwd_cnt - c->told_fwd_cnt >= VIRTIO_VSOCK_BUF_BYTES / 2)
		c->pend |= VSOCK_PEND_CREDIT_UPDATE;
	bool ctl = c->pend || (open && (c->shut_want & ~c->shut_told));

	if (ctl != c->on_ctl) {
		if (ctl)
			TAILQ_INSERT_TAIL(&v->ctl, c, ctl_link);
		else
			TAILQ_REMOVE(&v->ctl, c, ctl_link);
		c->on_ctl = ctl;
	}
	if (rd != c->on_rd) {
		if (rd)
			TAILQ_INSERT_TAIL(&v->rd, c, rd_link);
		else
			TAILQ_REMOVE(&v->rd, c, rd_link);
		c->on_rd = rd;
	}
}

void vsock_conn_request(struct vsock_conn *c)
{
	leave_state(c);
	c->state = VSOCK_CONNECTING;
	c->pend = VSOCK_PEND_REQUEST;
	vsock_conn_update(c);
}

void vsock_conn_start(struct vsock_conn *c, uint32_t guest_port)
{
	struct virtio_vsock *v = c->v;
	c->guest_port = guest_port;
	if (v->agent_ready) {
		vsock_conn_request(c);
	} else if (v->n_waiting == VIRTIO_VSOCK_MAX_WAITING) {
		vsock_conn_kill(c);
	} else {
		c->state = VSOCK_WAITING;
		v->n_waiting++;
		TAILQ_INSERT_TAIL(&v->waiting, c, state_link);
	}
}

void vsock_conn_host_eof(struct vsock_conn *c)
{
	c->host_eof = true;
	c->readable = false;
	c->shut_want |= VIRTIO_VSOCK_SHUTDOWN_SEND;
}

/* The client takes no more: what is buffered is void, and the guest may know that sending is useless. */
static void host_gone(struct vsock_conn *c)
{
	c->host_gone = true;
	free(c->out);
	c->out = NULL;
	c->out_len = 0;
	c->fwd_cnt = c->rx_cnt;
	c->shut_want |= VIRTIO_VSOCK_SHUTDOWN_RCV;
}

/* The guest's end of stream, once everything before it is with the client. */
static void tell_eof(struct vsock_conn *c)
{
	if (c->guest_no_send && !c->out_len && !c->eof_told && c->fd >= 0) {
		c->eof_told = true;
		shutdown(c->fd, SHUT_WR);
	}
}

/* Sends iov to the client. Returns bytes taken (short: the socket is full), or -1: the client is gone. */
static int64_t send_iov(int fd, struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r;
	do
		r = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		return 0;
	return r;
}

/* Writes what is buffered, as far as the socket takes it. */
static void flush(struct vsock_conn *c)
{
	while (c->out_len) {
		uint32_t first = VIRTIO_VSOCK_BUF_BYTES - c->out_head;
		if (first > c->out_len)
			first = c->out_len;
		struct iovec iov[2] = {{c->out + c->out_head, first}, {c->out, c->out_len - first}};
		int64_t r = send_iov(c->fd, iov, iov[1].iov_len ? 2 : 1);
		if (r < 0) {
			host_gone(c);
			return;
		}
		if (!r)
			return; /* epoll tells when there is room again */
		c->out_head = (c->out_head + (uint32_t)r) % VIRTIO_VSOCK_BUF_BYTES;
		c->out_len -= (uint32_t)r;
		c->fwd_cnt += (uint32_t)r;
	}
	free(c->out);
	c->out = NULL;
	tell_eof(c);
}

/* Buffers [off, off + n) of the packet's payload behind what is there. The credit check made sure that it fits. */
static bool keep(struct vsock_conn *c, uint32_t off, uint32_t n)
{
	if (!c->out) {
		c->out = malloc(VIRTIO_VSOCK_BUF_BYTES);
		c->out_head = 0;
	}
	if (!c->out)
		return false;
	uint32_t at = (c->out_head + c->out_len) % VIRTIO_VSOCK_BUF_BYTES, first = VIRTIO_VSOCK_BUF_BYTES - at;
	if (first > n)
		first = n;
	virtq_read(&c->v->chain, HDR + off, c->out + at, first);
	virtq_read(&c->v->chain, HDR + off + first, c->out, n - first);
	c->out_len += n;
	return true;
}

static void data_from_guest(struct vsock_conn *c, uint32_t len)
{
	struct virtio_vsock *v = c->v;
	if (c->guest_no_send || len > VIRTIO_VSOCK_BUF_BYTES - (c->rx_cnt - c->fwd_cnt)) {
		vsock_conn_abort(c); /* more than its credit, or after its end of stream */
		return;
	}
	c->rx_cnt += len;
	v->stats.tx_bytes += len;
	uint32_t sent = 0;
	if (c->host_gone) {
		c->fwd_cnt += len;
		return;
	}
	while (!c->out_len && sent < len) {
		unsigned k = virtq_slice(&v->chain, false, HDR + sent, len - sent, v->iov);
		int64_t r = send_iov(c->fd, v->iov, k);
		if (r < 0) {
			host_gone(c);
			return;
		}
		if (!r)
			break;
		sent += (uint32_t)r;
		c->fwd_cnt += (uint32_t)r;
	}
	if (sent < len && !keep(c, sent, len - sent))
		vsock_conn_abort(c);
}

static void accepted(struct vsock_conn *c)
{
	char line[32];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);
	/* A fresh socket takes a line; one that does not is not worth waiting for. */
	if (c->handshake && send(c->fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		vsock_conn_abort(c);
		return;
	}
	c->state = VSOCK_OPEN;
	c->v->stats.opened++;
}

static void shutdown_from_guest(struct vsock_conn *c, uint32_t flags)
{
	c->guest_no_recv |= !!(flags & VIRTIO_VSOCK_SHUTDOWN_RCV);
	c->guest_no_send |= !!(flags & VIRTIO_VSOCK_SHUTDOWN_SEND);
	if (c->guest_no_recv && c->guest_no_send) {
		/* Answered at once, so that the guest is done with it; what it sent is on its way by us now. */
		detach(c, VSOCK_PEND_RST);
		return;
	}
	if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV && c->fd >= 0)
		shutdown(c->fd, SHUT_RD); /* the client's next write fails */
	tell_eof(c);
}

void vsock_conn_accept(struct virtio_vsock *v, const struct virtio_vsock_hdr *h)
{
	struct vsock_conn *c = v->n_announced < VSOCK_MAX_ANNOUNCE ? vsock_conn_new(v, -1) : NULL;
	if (!c) {
		vsock_refuse(v, h);
		return;
	}
	c->from_guest = true;
	c->host_gone = true; /* what it sends is dropped */
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->state = VSOCK_OPEN;
	c->pend = VSOCK_PEND_RESPONSE;
	v->n_announced++;
	TAILQ_INSERT_TAIL(&v->announced, c, state_link);
	vsock_conn_update(c);

	v->agent_ready = v->tell_ready = true;
	vsock_kick(v);
	struct vsock_conn *w;
	while ((w = TAILQ_FIRST(&v->waiting)))
		vsock_conn_request(w);
}

/* The connection that a packet belongs to, or NULL. */
static struct vsock_conn *lookup(struct virtio_vsock *v, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c;
	if (host_port == VIRTIO_VSOCK_READY_PORT) {
		TAILQ_FOREACH(c, &v->announced, state_link)
			if (c->guest_port == guest_port)
				return c;
		return NULL;
	}
	c = v->conn[host_port & (VIRTIO_VSOCK_MAX_CONNS - 1)];
	if (!c || c->host_port != host_port || c->guest_port != guest_port)
		return NULL;
	bool known = c->state == VSOCK_OPEN || c->state == VSOCK_LINGER ||
		     (c->state == VSOCK_CONNECTING && !(c->pend & VSOCK_PEND_REQUEST));
	return known ? c : NULL;
}

static void take_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
	while (c->unread_n && (int32_t)(h->fwd_cnt - c->unread_end[c->unread_first]) >= 0) {
		c->unread_first = (c->unread_first + 1) % VSOCK_MAX_UNREAD;
		c->unread_n--;
	}
	if (vsock_conn_credit(c))
		c->asked = false;
}

int vsock_packet(struct virtio_vsock *v)
{
	struct virtio_vsock_hdr h;
	if (!virtq_read(&v->chain, 0, &h, HDR) || h.len > v->chain.out_len - HDR)
		return -1;
	if (h.src_cid != VIRTIO_VSOCK_GUEST_CID)
		return 0; /* not from this guest: nobody to answer */
	if (h.dst_cid != VIRTIO_VSOCK_HOST_CID || h.type != VIRTIO_VSOCK_TYPE_STREAM) {
		vsock_refuse(v, &h);
		return 0;
	}
	struct vsock_conn *c = lookup(v, h.dst_port, h.src_port);
	if (!c) {
		if (h.op == VIRTIO_VSOCK_OP_REQUEST && h.dst_port == VIRTIO_VSOCK_READY_PORT)
			vsock_conn_accept(v, &h);
		else
			vsock_refuse(v, &h);
		return 0;
	}
	take_credit(c, &h);
	if (h.op == VIRTIO_VSOCK_OP_RST) {
		v->stats.resets++;
		vsock_conn_guest_gone(c);
		return 0;
	}
	bool connecting = c->state == VSOCK_CONNECTING;
	if (connecting != (h.op == VIRTIO_VSOCK_OP_RESPONSE)) {
		vsock_conn_abort(c);
		return 0;
	}
	switch (h.op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		accepted(c);
		break;
	case VIRTIO_VSOCK_OP_RW:
		data_from_guest(c, h.len);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		shutdown_from_guest(c, h.flags);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->pend |= VSOCK_PEND_CREDIT_UPDATE;
		break;
	default:
		vsock_conn_abort(c);
	}
	vsock_conn_update(c);
	return 0;
}

/* True when the client has ended and left nothing to read. */
static bool at_end(const struct vsock_conn *c)
{
	char byte;
	ssize_t n;
	do
		n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

void vsock_conn_event(struct vsock_conn *c, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & (EPOLLHUP | EPOLLERR))
		c->hup = true;

	switch (c->state) {
	case VSOCK_WAITING:
		if (c->hup)
			vsock_conn_kill(c);
		return;
	case VSOCK_CONNECTING:
		if (c->hup && (c->pend & VSOCK_PEND_REQUEST))
			vsock_conn_kill(c); /* the guest never heard of it */
		else if (c->hup)
			vsock_conn_abort(c);
		return;
	case VSOCK_OPEN:
	case VSOCK_DRAIN:
		if (c->hup)
			host_gone(c);
		else if (events & EPOLLOUT && c->out_len)
			flush(c);
		/* Looked at now and not when there is credit to read, so that a close is told in one packet and without delay. */
		if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) && c->fd >= 0 && !c->guest_no_recv && at_end(c))
			vsock_conn_host_eof(c);
		break;
	default:
		return;
	}
	vsock_conn_update(c);
}
