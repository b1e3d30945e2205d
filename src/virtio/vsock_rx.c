/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: from the host to the guest.
 *
 * Nothing for the guest is ever queued as bytes. A control packet waits as a flag of its connection, data waits in the client's
 * socket, and when the guest offers an rx buffer the packet is made right in it: the header in front, the payload read
 * from the socket into guest RAM behind it. When the guest offers no buffers or gives no credit, we do not read, and
 * the client feels it as a full socket. Connections take turns: one packet each, or, for one whose client has more than
 * fits a packet, as many as one read fills.
 *
 * The guest is asked to notify about new rx buffers only when work waits for one.
 */
#include "virtio/vsock_internal.h"

#include <errno.h>
#include <sys/uio.h>

#include "base/util.h"

#define HDR           ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define PUMP_BUDGET   128 /* turns before the loop gets one */

static void put_header(struct virtio_vsock *v, const struct virtq_chain *chain, struct vsock_conn *c, uint16_t op,
		       uint32_t flags, uint32_t len)
{
	struct virtio_vsock_hdr h = {
		.src_cid = VIRTIO_VSOCK_HOST_CID,
		.dst_cid = VIRTIO_VSOCK_GUEST_CID,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = VIRTIO_VSOCK_BUF_BYTES,
		.fwd_cnt = c->fwd_cnt,
	};
	c->told_fwd_cnt = c->fwd_cnt;
	virtq_write(v->dev.mem, chain, 0, &h, HDR);
}

static void put_rst(struct virtio_vsock *v)
{
	const struct vsock_rst *r = &v->rst[v->rst_first];
	struct virtio_vsock_hdr h = {
		.src_cid = r->src_cid,
		.dst_cid = VIRTIO_VSOCK_GUEST_CID,
		.src_port = r->src_port,
		.dst_port = r->dst_port,
		.type = r->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
	v->rst_first = (v->rst_first + 1) % VSOCK_MAX_RSTS;
	v->rst_n--;
	virtq_write(v->dev.mem, &v->chain, 0, &h, HDR);
}

/* The most urgent control packet of c. Everything before it in c's life has been sent, so RST may overtake the rest. */
static void put_control(struct virtio_vsock *v, struct vsock_conn *c)
{
	if (c->pend & VSOCK_PEND_RST) {
		c->pend = 0;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_RST, 0, 0);
	} else if (c->pend & VSOCK_PEND_REQUEST) {
		c->pend &= ~VSOCK_PEND_REQUEST;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
	} else if (c->pend & VSOCK_PEND_RESPONSE) {
		c->pend &= ~VSOCK_PEND_RESPONSE;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
	} else if (c->shut_want & ~c->shut_told) {
		c->shut_told = c->shut_want;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_SHUTDOWN, c->shut_told, 0);
	} else if (c->pend & VSOCK_PEND_CREDIT_REQUEST) {
		c->pend &= ~VSOCK_PEND_CREDIT_REQUEST;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0);
	} else {
		c->pend &= ~VSOCK_PEND_CREDIT_UPDATE;
		put_header(v, &v->chain, c, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
	}
	vsock_conn_update(c);
}

static bool no_rx_buffer(struct virtio_vsock *v)
{
	/* True also means that the driver's next notification brings us back. */
	return !virtq_enable_notify(&v->dev.q[VSOCK_Q_RX], v->dev.mem);
}

/* Takes an rx buffer into *chain: 1, 0 when there is none, -1 when the device has failed. */
static int take_buffer(struct virtio_vsock *v, struct virtq_chain *chain)
{
	int r = virtq_pop(&v->dev.q[VSOCK_Q_RX], v->dev.mem, chain);
	if (r == 0 || (r > 0 && chain->in_len > HDR))
		return r;
	virtio_dev_fail(&v->dev, "rx buffer");
	return -1;
}

/* Reads c's socket into as many rx buffers as it may fill. Returns the packets made, 0 also when the socket had nothing after
 * all; -1 when the device has failed; -2 when there is no buffer. */
static int put_data(struct virtio_vsock *v, struct vsock_conn *c)
{
	struct virtq *q = &v->dev.q[VSOCK_Q_RX];
	uint32_t credit = vsock_conn_credit(c);
	uint32_t want = c->bulk ? VSOCK_BATCH : 1, may = VSOCK_MAX_UNREAD - c->unread_n;
	uint64_t room = 0;
	unsigned taken = 0, segs = 0;

	if (want > may)
		want = may;
	/* The first chain always fits the array: it has fewer segments. */
	while (taken < want && room < credit && segs + VIRTQ_MAX_SIZE <= VSOCK_MAX_IOV) {
		struct virtq_chain *chain = &v->batch[taken];
		int r = take_buffer(v, chain);
		if (r < 0)
			return -1;
		if (!r)
			break;
		uint64_t n = chain->in_len - HDR;
		if (n > credit - room)
			n = credit - room;
		segs += virtq_slice(chain, true, HDR, n, &v->iov[segs]);
		room += n;
		taken++;
	}
	if (!taken)
		return -2;

	ssize_t got;
	do
		got = readv(c->fd, v->iov, (int)segs);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		c->readable = false;
	else if (got <= 0)
		vsock_conn_host_eof(c);
	c->bulk = got > 0 && (uint64_t)got == room;

	uint32_t left = got > 0 ? (uint32_t)got : 0;
	int made = 0;
	v->stats.rx_bytes += left;
	for (unsigned i = 0; i < taken && left; i++, made++) {
		const struct virtq_chain *chain = &v->batch[i];
		uint32_t n = chain->in_len - HDR < left ? (uint32_t)(chain->in_len - HDR) : left;
		virtq_written(v->dev.mem, chain, HDR, n);
		put_header(v, chain, c, VIRTIO_VSOCK_OP_RW, 0, n);
		c->tx_cnt += n;
		c->unread_end[(c->unread_first + c->unread_n++) % VSOCK_MAX_UNREAD] = c->tx_cnt;
		virtq_push(q, v->dev.mem, chain->head, HDR + n);
		left -= n;
	}
	for (unsigned i = (unsigned)made; i < taken; i++)
		virtq_unpop(q);
	/* To the back of the row: update takes it off, if it has to, and leaves its place alone otherwise. */
	TAILQ_REMOVE(&v->rd, c, rd_link);
	TAILQ_INSERT_TAIL(&v->rd, c, rd_link);
	vsock_conn_update(c);
	return made;
}

/* Makes one control packet: 1, or as put_data(). */
static int put_other(struct virtio_vsock *v)
{
	int r = take_buffer(v, &v->chain);
	if (r <= 0)
		return r < 0 ? -1 : -2;
	if (v->rst_n)
		put_rst(v);
	else
		put_control(v, TAILQ_FIRST(&v->ctl));
	virtq_push(&v->dev.q[VSOCK_Q_RX], v->dev.mem, v->chain.head, HDR);
	return 1;
}

void vsock_pump(struct virtio_vsock *v)
{
	struct virtq *q = &v->dev.q[VSOCK_Q_RX];
	bool any = false;
	if (!virtio_dev_live(&v->dev) || !q->ready)
		return;
	for (unsigned budget = PUMP_BUDGET;; budget--) {
		bool other = v->rst_n || !TAILQ_EMPTY(&v->ctl);
		if (!other && TAILQ_EMPTY(&v->rd))
			break;
		if (!budget) {
			vsock_kick(v);
			break;
		}
		int r = other ? put_other(v) : put_data(v, TAILQ_FIRST(&v->rd));
		if (r == -1)
			return;
		if (r == -2 && no_rx_buffer(v))
			break;
		if (r > 0 && !any) {
			virtq_disable_notify(q, v->dev.mem);
			any = true;
		}
	}
	if (any)
		virtio_dev_used(&v->dev, q);
}
