/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: from the host to the guest.
 *
 * Nothing for the guest is ever queued as bytes. A control packet waits as a flag of its connection, data waits in the client's
 * socket, and when the guest offers an rx buffer the packet is made right in it: the header in front, the payload read
 * from the socket into guest RAM behind it. When the guest offers no buffers or gives no credit, we do not read, and
 * the client feels it as a full socket. Connections take turns, one packet each.
 *
 * The guest is asked to notify about new rx buffers only when work waits for one.
 */
#include "virtio/vsock_internal.h"

#include <errno.h>
#include <sys/uio.h>

#include "base/util.h"

#define HDR           ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define PUMP_BUDGET   256 /* packets before the loop gets a turn */

static void put_header(struct virtio_vsock *v, struct vsock_conn *c, uint16_t op, uint32_t flags, uint32_t len)
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
	virtq_write(v->dev.mem, &v->chain, 0, &h, HDR);
}

static uint32_t put_rst(struct virtio_vsock *v)
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
	return HDR;
}

/* The most urgent control packet of c. Everything before it in c's life has been sent, so RST may overtake the rest. */
static uint32_t put_control(struct virtio_vsock *v, struct vsock_conn *c)
{
	if (c->pend & VSOCK_PEND_RST) {
		c->pend = 0;
		put_header(v, c, VIRTIO_VSOCK_OP_RST, 0, 0);
	} else if (c->pend & VSOCK_PEND_REQUEST) {
		c->pend &= ~VSOCK_PEND_REQUEST;
		put_header(v, c, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
	} else if (c->pend & VSOCK_PEND_RESPONSE) {
		c->pend &= ~VSOCK_PEND_RESPONSE;
		put_header(v, c, VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
	} else if (c->shut_want & ~c->shut_told) {
		c->shut_told = c->shut_want;
		put_header(v, c, VIRTIO_VSOCK_OP_SHUTDOWN, c->shut_told, 0);
	} else if (c->pend & VSOCK_PEND_CREDIT_REQUEST) {
		c->pend &= ~VSOCK_PEND_CREDIT_REQUEST;
		put_header(v, c, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0);
	} else {
		c->pend &= ~VSOCK_PEND_CREDIT_UPDATE;
		put_header(v, c, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
	}
	vsock_conn_update(c);
	return HDR;
}

/* Reads c's socket into the chain; 0 when there was nothing to send after all. */
static uint32_t put_data(struct virtio_vsock *v, struct vsock_conn *c)
{
	uint64_t room = v->chain.in_len - HDR;
	uint32_t credit = vsock_conn_credit(c);
	int k = (int)virtq_slice(&v->chain, true, HDR, room < credit ? room : credit, v->iov);
	ssize_t n;
	do
		n = readv(c->fd, v->iov, k);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			c->readable = false;
		else
			vsock_conn_host_eof(c);
		vsock_conn_update(c);
		return 0;
	}
	virtq_written(v->dev.mem, &v->chain, HDR, (uint64_t)n);
	put_header(v, c, VIRTIO_VSOCK_OP_RW, 0, (uint32_t)n);
	c->tx_cnt += (uint32_t)n;
	c->unread_end[(c->unread_first + c->unread_n++) % VSOCK_MAX_UNREAD] = c->tx_cnt;
	v->stats.rx_bytes += (uint64_t)n;
	/* To the back of the row: update takes it off, if it has to, and leaves its place alone otherwise. */
	TAILQ_REMOVE(&v->rd, c, rd_link);
	TAILQ_INSERT_TAIL(&v->rd, c, rd_link);
	vsock_conn_update(c);
	return HDR + (uint32_t)n;
}

void vsock_pump(struct virtio_vsock *v)
{
	struct virtq *q = &v->dev.q[VSOCK_Q_RX];
	bool any = false;
	if (!virtio_dev_live(&v->dev) || !q->ready)
		return;
	for (unsigned budget = PUMP_BUDGET;; budget--) {
		if (!v->rst_n && TAILQ_EMPTY(&v->ctl) && TAILQ_EMPTY(&v->rd))
			break;
		if (!budget) {
			vsock_kick(v);
			break;
		}
		int r = virtq_pop(q, v->dev.mem, &v->chain);
		if (r == 0) {
			if (virtq_enable_notify(q, v->dev.mem))
				continue;
			break; /* the driver's next notification brings us back */
		}
		if (r < 0 || v->chain.in_len <= HDR) {
			virtio_dev_fail(&v->dev, "rx buffer");
			return;
		}
		virtq_disable_notify(q, v->dev.mem);
		uint32_t n;
		if (v->rst_n)
			n = put_rst(v);
		else if (!TAILQ_EMPTY(&v->ctl))
			n = put_control(v, TAILQ_FIRST(&v->ctl));
		else
			n = put_data(v, TAILQ_FIRST(&v->rd));
		if (n) {
			virtq_push(q, v->dev.mem, v->chain.head, n);
			any = true;
		} else {
			virtq_unpop(q);
		}
	}
	if (any)
		virtio_dev_used(&v->dev, q);
}
