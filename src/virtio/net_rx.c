/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: from the backend to the guest.
 *
 * Rx buffers are taken from the queue until they hold the longest frame there is (with merged buffers; else one chain), the
 * frame is read right into them behind the place of its header, and as many as it needed are given back as used, all at
 * once, because a driver that sees the first wants to see the rest. What is left over serves the next frame and goes back
 * into the queue at the end.
 *
 * How long a frame is, is known only when it was read. So while the buffers hold less than the longest, and where a checksum
 * must be completed, the frame is read into a buffer of ours (`hold`) and copied. One that does not fit stays there until
 * the driver has added buffers, and nothing more is read; it is dropped only when no more buffers can come.
 */
#include "virtio/net_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define RX_BUDGET 64 /* frames before the loop gets a turn */

enum { RX_DONE, RX_EMPTY, RX_STARVED, RX_FAILED };

static void window_clear(struct net_window *w)
{
	w->first_seg = w->n_segs = w->first_buf = w->n_bufs = 0;
	w->len = 0;
}

/* Makes room at the end of the arrays. */
static void window_compact(struct net_window *w)
{
	memmove(w->iov, w->iov + w->first_seg, w->n_segs * sizeof(w->iov[0]));
	memmove(w->gpa, w->gpa + w->first_seg, w->n_segs * sizeof(w->gpa[0]));
	memmove(w->buf, w->buf + w->first_buf, w->n_bufs * sizeof(w->buf[0]));
	w->first_seg = w->first_buf = 0;
}

static void window_add(struct net_window *w, const struct virtq_chain *c)
{
	unsigned at = w->first_seg + w->n_segs;
	memcpy(w->iov + at, c->iov + c->n_out, c->n_in * sizeof(w->iov[0]));
	memcpy(w->gpa + at, c->gpa + c->n_out, c->n_in * sizeof(w->gpa[0]));
	w->n_segs += c->n_in;
	w->buf[w->first_buf + w->n_bufs].head = c->head;
	w->buf[w->first_buf + w->n_bufs].segs = c->n_in;
	w->buf[w->first_buf + w->n_bufs].len = c->in_len;
	w->n_bufs++;
	w->len += c->in_len;
}

/* Takes buffers until there are `want` bytes, or no more can be taken. RX_DONE or RX_FAILED. */
static int window_fill(struct virtio_net *n, struct virtq *q, uint64_t want)
{
	struct net_window *w = &n->win;
	while (w->len < want && w->n_bufs < q->size) {
		if (w->first_seg + w->n_segs + VIRTQ_MAX_SIZE > NET_RX_SEGS || w->first_buf + w->n_bufs == VIRTQ_MAX_SIZE)
			window_compact(w);
		if (w->n_segs + VIRTQ_MAX_SIZE > NET_RX_SEGS)
			break;
		int r = virtq_pop(q, n->dev.mem, &n->chain);
		if (r == 0)
			break;
		if (r < 0 || n->chain.in_len < NET_HDR) {
			virtio_dev_fail(&n->dev, "rx buffer");
			return RX_FAILED;
		}
		window_add(w, &n->chain);
	}
	return RX_DONE;
}

/* The window's segments of [off, off + len), into out; their number. */
static unsigned window_slice(const struct net_window *w, uint64_t off, uint64_t len, struct iovec *out)
{
	unsigned k = 0;
	for (unsigned i = w->first_seg; i < w->first_seg + w->n_segs && len; i++) {
		uint64_t have = w->iov[i].iov_len;
		if (off >= have) {
			off -= have;
			continue;
		}
		have = have - off < len ? have - off : len;
		out[k++] = (struct iovec){.iov_base = (uint8_t *)w->iov[i].iov_base + off, .iov_len = have};
		len -= have;
		off = 0;
	}
	return k;
}

/* Tells mem about the first len bytes. */
static void window_written(struct virtio_net *n, uint64_t len)
{
	const struct net_window *w = &n->win;
	for (unsigned i = w->first_seg; i < w->first_seg + w->n_segs && len; i++) {
		uint64_t k = w->iov[i].iov_len < len ? w->iov[i].iov_len : len;
		mem_written(n->dev.mem, w->gpa[i], k);
		len -= k;
	}
}

/* Copies to offset off; the caller has checked that it fits. */
static void window_copy(struct virtio_net *n, uint64_t off, const void *from, size_t len)
{
	const uint8_t *p = from;
	unsigned k = window_slice(&n->win, off, len, n->iov);
	for (unsigned i = 0; i < k; i++) {
		memcpy(n->iov[i].iov_base, p, n->iov[i].iov_len);
		p += n->iov[i].iov_len;
	}
}

/* How many bytes one frame may take: all, or the first chain. */
static uint64_t window_room(const struct virtio_net *n)
{
	const struct net_window *w = &n->win;
	return virtio_dev_has(&n->dev, VIRTIO_NET_F_MRG_RXBUF) ? w->len : w->buf[w->first_buf].len;
}

/* Gives the header and the len bytes of frame behind it, which are in place, to the driver. */
static void window_publish(struct virtio_net *n, struct virtq *q, struct virtio_net_hdr_v1 *h, uint32_t len)
{
	struct net_window *w = &n->win;
	uint64_t total = NET_HDR + (uint64_t)len, left = total;
	unsigned bufs = 0;

	for (; left; bufs++) {
		uint64_t have = w->buf[w->first_buf + bufs].len, k = have < left ? have : left;
		virtq_fill(q, n->dev.mem, bufs, w->buf[w->first_buf + bufs].head, (uint32_t)k);
		left -= k;
	}
	h->num_buffers = (uint16_t)bufs;
	window_copy(n, 0, h, NET_HDR);
	window_written(n, total);
	virtq_publish(q, n->dev.mem, bufs);
	for (; bufs; bufs--, w->first_buf++, w->n_bufs--) {
		w->first_seg += w->buf[w->first_buf].segs;
		w->n_segs -= w->buf[w->first_buf].segs;
		w->len -= w->buf[w->first_buf].len;
	}
	n->stats.rx_frames++;
	n->stats.rx_bytes += len;
}

/* Computes the checksum that a frame in memory still lacks. False when there is no place for it. */
static bool complete_checksum(uint8_t *frame, uint32_t len, const struct virtio_net_hdr_v1 *h)
{
	uint32_t start = h->csum_start, at = start + h->csum_offset;
	uint64_t sum = 0;
	if (at + 2 > len || start >= len)
		return false;
	/* The field holds the pseudo header's sum, which counts like any other word. */
	uint32_t i = start;
	for (; i + 1 < len; i += 2)
		sum += (uint32_t)(frame[i] << 8 | frame[i + 1]);
	if (i < len)
		sum += (uint32_t)frame[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	uint16_t c = (uint16_t)~sum;
	if (!c)
		c = 0xffff; /* the same number, and not UDP's "none" */
	frame[at] = (uint8_t)(c >> 8);
	frame[at + 1] = (uint8_t)c;
	return true;
}

static bool gso_accepted(const struct virtio_net *n, uint8_t type)
{
	if ((type & VIRTIO_NET_HDR_GSO_ECN) && !virtio_dev_has(&n->dev, VIRTIO_NET_F_GUEST_ECN))
		return false;
	switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		return type == VIRTIO_NET_HDR_GSO_NONE;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return virtio_dev_has(&n->dev, VIRTIO_NET_F_GUEST_TSO4);
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return virtio_dev_has(&n->dev, VIRTIO_NET_F_GUEST_TSO6);
	case NET_GSO_UDP_L4: /* which of the two is not in the header, and the tap has both or none */
		return virtio_dev_has(&n->dev, NET_F_GUEST_USO4) && virtio_dev_has(&n->dev, NET_F_GUEST_USO6);
	default:
		return false;
	}
}

/* Makes a header from the backend fit what the driver accepted. False: the frame cannot be given to it. frame: where it is in
 * our own memory, NULL when it is in the guest's. */
static bool rx_header(const struct virtio_net *n, struct virtio_net_hdr_v1 *h, uint8_t *frame, uint32_t len)
{
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
	if (!gso_accepted(n, h->gso_type))
		return false;
	if (virtio_dev_has(&n->dev, VIRTIO_NET_F_GUEST_CSUM))
		return true;
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (!frame || !complete_checksum(frame, len, h))
			return false;
	}
	*h = (struct virtio_net_hdr_v1){0};
	return true;
}

/* Gives the frame in p->hold to the guest, if it fits. */
static int give_held(struct virtio_net *n, struct net_port *p, struct virtq *q)
{
	const struct net_window *w = &n->win;
	if (window_fill(n, q, NET_HDR + (uint64_t)p->held) != RX_DONE)
		return RX_FAILED;
	bool mrg = virtio_dev_has(&n->dev, VIRTIO_NET_F_MRG_RXBUF);
	if (!w->n_bufs || (mrg && w->len < NET_HDR + (uint64_t)p->held && w->n_bufs < q->size && w->n_segs < q->size))
		return RX_STARVED;
	if (window_room(n) < NET_HDR + (uint64_t)p->held) {
		/* One chain is too short, or all that the ring has room for: waiting would change nothing. */
		n->stats.rx_dropped++;
	} else {
		window_copy(n, NET_HDR, p->hold, p->held);
		window_publish(n, q, &p->held_hdr, p->held);
	}
	p->held = 0;
	return RX_DONE;
}

static int read_error(struct virtio_net *n, ssize_t r)
{
	if (r == NET_GONE)
		n->gone = true;
	if (r != NET_DROP)
		return RX_EMPTY;
	n->stats.rx_dropped++;
	return RX_DONE;
}

static int read_held(struct virtio_net *n, struct net_port *p, struct virtq *q)
{
	if (!p->hold && !(p->hold = malloc(VIRTIO_NET_MAX_FRAME))) {
		n->gone = true; /* without memory there is no way on, and the link says so */
		return RX_EMPTY;
	}
	struct virtio_net_hdr_v1 h = {0};
	struct iovec iov[] = {{&h, NET_HDR}, {p->hold, VIRTIO_NET_MAX_FRAME}, {&n->spill, 1}};
	ssize_t r = n->be->read(p, iov, ARRAY_LEN(iov));
	if (r < 0)
		return read_error(n, r);
	if ((size_t)r < NET_HDR + NET_MIN_FRAME || (size_t)r > NET_HDR + VIRTIO_NET_MAX_FRAME ||
	    !rx_header(n, &h, p->hold, (uint32_t)r - NET_HDR)) {
		n->stats.rx_dropped++;
		return RX_DONE;
	}
	p->held_hdr = h;
	p->held = (uint32_t)r - NET_HDR;
	return give_held(n, p, q);
}

static int read_direct(struct virtio_net *n, struct net_port *p, struct virtq *q, uint64_t room)
{
	struct virtio_net_hdr_v1 h = {0};
	n->iov[0] = (struct iovec){.iov_base = &h, .iov_len = NET_HDR};
	unsigned k = 1 + window_slice(&n->win, NET_HDR, room - NET_HDR, n->iov + 1);
	n->iov[k++] = (struct iovec){.iov_base = &n->spill, .iov_len = 1};
	ssize_t r = n->be->read(p, n->iov, k);
	if (r < 0)
		return read_error(n, r);
	bool fits = (size_t)r >= NET_HDR + NET_MIN_FRAME && (size_t)r <= room;
	if (!fits || !rx_header(n, &h, NULL, (uint32_t)r - NET_HDR)) {
		window_written(n, (size_t)r < room ? (size_t)r : room); /* the buffers stay the driver's, but they have changed */
		n->stats.rx_dropped++;
		return RX_DONE;
	}
	window_publish(n, q, &h, (uint32_t)r - NET_HDR);
	return RX_DONE;
}

static int one_frame(struct virtio_net *n, struct net_port *p, struct virtq *q)
{
	const uint64_t longest = NET_HDR + (uint64_t)VIRTIO_NET_MAX_FRAME;
	if (p->held)
		return give_held(n, p, q);
	bool mrg = virtio_dev_has(&n->dev, VIRTIO_NET_F_MRG_RXBUF);
	if (window_fill(n, q, mrg ? longest : 1) != RX_DONE)
		return RX_FAILED;
	if (!n->win.n_bufs)
		return RX_STARVED;
	bool fix = n->be->headers && (n->dev.features & BIT(VIRTIO_NET_F_GUEST_CSUM)) &&
		   !virtio_dev_has(&n->dev, VIRTIO_NET_F_GUEST_CSUM);
	uint64_t room = window_room(n);
	if (fix || (mrg && room < longest))
		return read_held(n, p, q);
	return read_direct(n, p, q, room < longest ? room : longest);
}

bool net_rx(struct virtio_net *n, struct net_port *p)
{
	struct virtq *q = net_rx_queue(n, p->index % n->pairs);
	uint64_t before = n->stats.rx_frames;
	int r = RX_DONE;

	window_clear(&n->win);
	virtq_disable_notify(q, n->dev.mem);
	for (unsigned i = 0; i < RX_BUDGET && r == RX_DONE; i++) {
		r = one_frame(n, p, q);
		/* Asked for behind the last buffer taken; true: more have come meanwhile. */
		if (r == RX_STARVED && virtq_enable_notify(q, n->dev.mem))
			r = RX_DONE;
	}
	if (r == RX_FAILED)
		return false;
	p->starved = r == RX_STARVED;
	for (unsigned i = 0; i < n->win.n_bufs; i++)
		virtq_unpop(q);
	if (n->stats.rx_frames != before)
		virtio_dev_used(&n->dev, q);
	return r == RX_DONE;
}
