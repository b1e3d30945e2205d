/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: what of virtio-vsock outlives a snapshot.
 *
 * The guest's half of each connection is in guest memory; ours is a socket of a process that knows nothing of the copy. So the agent's
 * announcement, which has no socket, is kept as it is, listeners in the guest need nothing, and every other connection that the
 * guest knows of is reset: by a packet each, made when the guest has a buffer for it, like any other. Clients that the guest has not heard of are
 * not mentioned. Ports given out after a restore differ from those given out before, which the guest may still remember.
 */
#include "virtio/vsock_internal.h"

#include <errno.h>

#include "base/util.h"

enum { KEPT, RESET };

static bool guest_knows(const struct vsock_conn *c)
{
	switch (c->state) {
	case VSOCK_CONNECTING:
		return !(c->pend & VSOCK_PEND_REQUEST);
	case VSOCK_OPEN:
	case VSOCK_LINGER:
		return true;
	case VSOCK_DRAIN:
		return c->pend & VSOCK_PEND_RST;
	default:
		return false;
	}
}

static void save_conn(const struct vsock_conn *c, struct buf *out)
{
	bool kept = c->state == VSOCK_OPEN && c->from_guest;
	buf_put_u32(out, kept ? KEPT : RESET);
	buf_put_u32(out, c->host_port);
	buf_put_u32(out, c->guest_port);
	if (!kept)
		return;
	buf_put_u32(out, c->pend & (VSOCK_PEND_RESPONSE | VSOCK_PEND_CREDIT_UPDATE));
	buf_put_u32(out, c->rx_cnt);
	buf_put_u32(out, c->told_fwd_cnt);
	buf_put_u32(out, c->peer_buf_alloc);
	buf_put_u32(out, c->peer_fwd_cnt);
	buf_put_u32(out, (uint32_t)(c->guest_no_recv ? 1 : 0) | (c->guest_no_send ? 2 : 0));
}

void vsock_save(struct virtio_dev *d, struct buf *out)
{
	struct virtio_vsock *v = container_of(d, struct virtio_vsock, dev);
	uint32_t n = 0, generation = 0;
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++) {
		n += v->conn[i] && guest_knows(v->conn[i]);
		if (v->generation[i] > generation)
			generation = v->generation[i];
	}
	buf_put_u32(out, v->agent_ready);
	buf_put_u32(out, generation + 1);
	buf_put_u32(out, n);
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++)
		if (v->conn[i] && guest_knows(v->conn[i]))
			save_conn(v->conn[i], out);
	buf_put_u32(out, v->rst_n);
	for (uint32_t i = 0; i < v->rst_n; i++) {
		const struct vsock_rst *r = &v->rst[(v->rst_first + i) % VSOCK_MAX_RSTS];
		buf_put_u64(out, r->src_cid);
		buf_put_u32(out, r->src_port);
		buf_put_u32(out, r->dst_port);
		buf_put_u32(out, r->type);
	}
}

static int load_conn(struct virtio_vsock *v, struct buf_reader *r, struct cai_error *err)
{
	uint32_t kind = buf_get_u32(r), host_port = buf_get_u32(r), guest_port = buf_get_u32(r);
	if (r->bad || kind > RESET)
		return cai_fail(err, EINVAL, "a connection in it is malformed");
	if (kind == KEPT && (host_port != VIRTIO_VSOCK_READY_PORT || v->n_announced == VSOCK_MAX_ANNOUNCE))
		return cai_fail(err, EINVAL, "it keeps a connection that cannot be kept");
	struct vsock_conn *c = vsock_conn_new(v, -1);
	if (!c)
		return cai_fail(err, ENOMEM, "it has too many connections");
	c->host_port = host_port;
	c->guest_port = guest_port;
	c->host_gone = true;
	if (kind == RESET) {
		c->state = VSOCK_DRAIN;
		c->pend = VSOCK_PEND_RST;
	} else {
		c->pend = buf_get_u32(r) & (VSOCK_PEND_RESPONSE | VSOCK_PEND_CREDIT_UPDATE);
		c->rx_cnt = c->fwd_cnt = buf_get_u32(r);
		c->told_fwd_cnt = buf_get_u32(r);
		c->peer_buf_alloc = buf_get_u32(r);
		c->peer_fwd_cnt = buf_get_u32(r);
		uint32_t flags = buf_get_u32(r);
		c->guest_no_recv = flags & 1;
		c->guest_no_send = flags & 2;
		c->from_guest = true;
		c->state = VSOCK_OPEN;
		v->n_announced++;
		TAILQ_INSERT_TAIL(&v->announced, c, state_link);
	}
	vsock_conn_update(c);
	return 0;
}

int vsock_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	struct virtio_vsock *v = container_of(d, struct virtio_vsock, dev);
	bool ready = buf_get_u32(r);
	uint32_t generation = buf_get_u32(r), n = buf_get_u32(r);
	if (r->bad || n > VIRTIO_VSOCK_MAX_CONNS)
		return cai_fail(err, EINVAL, "its list of connections is malformed");
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_CONNS; i++)
		v->generation[i] = generation;
	for (uint32_t i = 0; i < n; i++)
		if (load_conn(v, r, err) < 0)
			return -1;
	n = buf_get_u32(r);
	if (r->bad || n > VSOCK_MAX_RSTS)
		return cai_fail(err, EINVAL, "its list of resets is malformed");
	for (uint32_t i = 0; i < n; i++) {
		struct vsock_rst *rst = &v->rst[i];
		rst->src_cid = buf_get_u64(r);
		rst->src_port = buf_get_u32(r);
		rst->dst_port = buf_get_u32(r);
		rst->type = (uint16_t)buf_get_u32(r);
	}
	v->rst_first = 0;
	v->rst_n = n;
	v->agent_ready = v->tell_ready = ready;
	return 0;
}

void vsock_resume(struct virtio_dev *d)
{
	/* The loop's thread tells of the agent, takes clients that wait, and sends the resets. */
	vsock_kick(container_of(d, struct virtio_vsock, dev));
}
