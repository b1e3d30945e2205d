/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: from the guest to the backend.
 *
 * A chain is a header and a frame. The header is copied, checked against the frame's length and against what was
 * negotiated, and the copy goes to the backend with the frame behind it right from guest memory: what the kernel sees as
 * offsets and sizes is what was checked, whatever the guest writes meanwhile. A frame whose header makes no sense is
 * dropped; only a chain without room for a header breaks the device.
 *
 * When the backend takes no more, the chain goes back into the queue, the driver is not asked to notify, and the queue waits
 * until epoll says that there is room.
 */
#include "virtio/net_internal.h"

#include "base/util.h"

#define TX_BUDGET 64 /* frames between two looks at who else wants the device */
#define TCP_HDR   20u
#define UDP_HDR   8u

bool net_tx_header(const struct virtio_net *n, struct virtio_net_hdr_v1 *h, uint32_t len)
{
	bool csum = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	uint32_t start = h->csum_start, transport;
	unsigned feature;

	h->flags = csum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0; /* the rest is for the other way */
	h->num_buffers = 0;
	if (csum) {
		if (!virtio_dev_has(&n->dev, VIRTIO_NET_F_CSUM) || start < NET_MIN_FRAME ||
		    start + h->csum_offset + 2u > len)
			return false;
	} else {
		h->csum_start = h->csum_offset = 0;
	}
	switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		h->hdr_len = h->gso_size = 0;
		return h->gso_type == VIRTIO_NET_HDR_GSO_NONE;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		feature = VIRTIO_NET_F_HOST_TSO4;
		transport = TCP_HDR;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		feature = VIRTIO_NET_F_HOST_TSO6;
		transport = TCP_HDR;
		break;
	case NET_GSO_UDP_L4:
		feature = NET_F_HOST_USO;
		transport = UDP_HDR;
		break;
	default:
		return false;
	}
	if (h->gso_type & VIRTIO_NET_HDR_GSO_ECN &&
	    (transport != TCP_HDR || !virtio_dev_has(&n->dev, VIRTIO_NET_F_HOST_ECN)))
		return false;
	/* hdr_len is only advice, but the kernel takes it for a length. */
	return virtio_dev_has(&n->dev, feature) && csum && h->gso_size && h->hdr_len <= len && start + transport <= len;
}

/* Sends the popped chain. 0 or NET_*; 1 when it is no packet at all. */
static ssize_t send_chain(struct virtio_net *n, struct net_port *p)
{
	struct virtio_net_hdr_v1 h;
	if (!virtq_read(&n->chain, 0, &h, NET_HDR))
		return 1;
	uint64_t len = n->chain.out_len - NET_HDR;
	if (!p || len < NET_MIN_FRAME || len > VIRTIO_NET_MAX_FRAME || !net_tx_header(n, &h, (uint32_t)len))
		return NET_DROP;
	n->iov[0] = (struct iovec){.iov_base = &h, .iov_len = NET_HDR};
	unsigned k = 1 + virtq_slice(&n->chain, false, NET_HDR, len, n->iov + 1);
	ssize_t r = n->be->write(p, n->iov, k, (uint32_t)len);
	if (r == 0) {
		n->stats.tx_frames++;
		n->stats.tx_bytes += len;
	}
	return r;
}

bool net_tx(struct virtio_net *n, unsigned pair)
{
	struct virtq *q = net_tx_queue(n, pair);
	bool more = true, any = false;

	virtq_disable_notify(q, n->dev.mem);
	for (unsigned i = 0; i < TX_BUDGET; i++) {
		struct net_port *p = net_link_up(n) && !n->gone ? &n->port[pair % n->n_ports] : NULL;
		if (p && p->blocked) {
			more = false;
			break;
		}
		int got = virtq_pop(q, n->dev.mem, &n->chain);
		if (got == 0) {
			more = virtq_enable_notify(q, n->dev.mem);
			break;
		}
		ssize_t r = got < 0 ? 1 : send_chain(n, p);
		if (r == 1) {
			virtio_dev_fail(&n->dev, "tx packet");
			return false;
		}
		if (r == NET_AGAIN) {
			virtq_unpop(q);
			p->blocked = true;
			continue;
		}
		if (r == NET_GONE)
			n->gone = true;
		if (r != 0)
			n->stats.tx_dropped++;
		virtq_push(q, n->dev.mem, n->chain.head, 0);
		any = true;
	}
	if (any)
		virtio_dev_used(&n->dev, q);
	return more;
}
