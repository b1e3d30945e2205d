/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest against virtio-net, over each kind of socket, with a peer that sends frames, reads, fills up and closes.
 * Every frame that reaches a peer must have the size that was promised, and a header that fits it.
 */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/net.h"

struct wire {
	struct virtio_net *n;
	enum virtio_net_kind kind;
	int peer;
	unsigned frames;
};

static uint8_t buf[80000];

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void plug(struct wire *w)
{
	static const int type[] = {[NET_DGRAM] = SOCK_DGRAM, [NET_DGRAM_HDR] = SOCK_SEQPACKET, [NET_STREAM] = SOCK_STREAM};
	int sv[2], small = 40000;
	must(socketpair(AF_UNIX, type[w->kind] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0);
	/* a slow peer is slow soon */
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (virtio_net_attach(w->n, w->kind, sv, 1, NULL) < 0) {
		close(sv[0]);
		close(sv[1]);
		return;
	}
	if (w->peer >= 0)
		close(w->peer);
	w->peer = sv[1];
}

static struct virtio_dev *create(struct fv *f)
{
	struct wire *w = calloc(1, sizeof(*w));
	must(w != NULL);
	uint8_t how = fv_u8(f);
	w->peer = -1;
	w->kind = how % 3 == 0 ? NET_DGRAM_HDR : how % 3 == 1 ? NET_DGRAM : NET_STREAM;
	struct virtio_net_options opt = {.mtu = 1500, .max_pairs = how & 0x80 ? 1 : 2};
	if (w->kind == NET_DGRAM_HDR)
		opt.offloads = NET_OFFLOADS;
	w->n = virtio_net_create(&f->mem, (struct irq_line){0}, NULL, &opt, NULL);
	must(w->n != NULL);
	f->device = w;
	if (!(how & 0x40))
		plug(w);
	return virtio_net_dev(w->n);
}

static void check_header(const struct virtio_net_hdr_v1 *h, uint32_t len)
{
	must(!(h->flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM));
	must(!h->flags || (uint32_t)h->csum_start + h->csum_offset + 2 <= len);
	must(h->hdr_len <= len);
	uint8_t t = h->gso_type & 0x7f;
	must(t == 0 || t == 1 || t == 4 || t == 5);
	must(!h->gso_type || (h->gso_size && h->flags && t));
}

static void listen_to(struct wire *w)
{
	if (w->peer < 0)
		return;
	for (unsigned i = 0; i < 64; i++) {
		ssize_t r = recv(w->peer, buf, sizeof(buf), 0);
		if (r <= 0)
			return;
		if (w->kind == NET_STREAM)
			continue;
		struct virtio_net_hdr_v1 h = {0};
		uint32_t hdr = w->kind == NET_DGRAM_HDR ? sizeof(h) : 0;
		must((size_t)r >= hdr + 14 && (size_t)r <= hdr + VIRTIO_NET_MAX_FRAME);
		memcpy(&h, buf, hdr);
		check_header(&h, (uint32_t)r - hdr);
	}
}

static void talk(struct fv *f, struct wire *w, uint8_t how)
{
	if (w->peer < 0)
		return;
	uint32_t len = fv_u16(f), at = 0;
	memset(buf, how, len + 32);
	if (w->kind == NET_STREAM) {
		/* mostly the length that follows */
		uint32_t v = how & 0x80 ? fv_u32(f) : len;
		for (unsigned i = 0; i < 4; i++)
			buf[at++] = (uint8_t)(v >> (24 - 8 * i));
	} else if (w->kind == NET_DGRAM_HDR) {
		struct virtio_net_hdr_v1 h = {0};
		if (how & 0x80)
			h = (struct virtio_net_hdr_v1){.flags = fv_u8(f), .gso_type = fv_u8(f), .csum_start = fv_u16(f),
						       .csum_offset = fv_u16(f), .num_buffers = how};
		memcpy(buf, &h, sizeof(h));
		at = sizeof(h);
	}
	ssize_t r = send(w->peer, buf, at + len, MSG_NOSIGNAL);
	(void)r;
}

/* A packet whose header is mostly right. */
static void packet(struct fv *f, struct wire *w, uint8_t how)
{
	uint8_t bits = fv_u8(f);
	uint32_t len = fv_u16(f);
	struct virtio_net_hdr_v1 h = {.csum_start = 34, .csum_offset = 16, .hdr_len = 54, .gso_size = 1448};
	h.flags = bits & 1;
	h.gso_type = (uint8_t)(bits >> 1 & 7) | (bits & 0x10 ? 0x80 : 0);
	if (bits & 0x20)
		h.csum_start = fv_u16(f);
	if (bits & 0x40)
		h.hdr_len = fv_u16(f);
	if (bits & 0x80)
		h.gso_size = fv_u16(f);
	uint64_t at = 0x30000 + (w->frames++ % 64) * 0x40;
	mem_write(&f->mem, at, &h, sizeof(h));
	struct fv_seg seg[] = {{at, sizeof(h), false}, {0x40000, len, false}, {0x60000, len & 0xfff, false}};
	fv_chain(f, how & 1 ? 3 : 1, seg, how & 2 ? 3 : 2);
	fv_notify(f, how & 1 ? 3 : 1);
}

static void extra(struct fv *f, uint8_t op)
{
	struct wire *w = f->device;
	uint8_t how = op >> 4;
	switch (op & 15) {
	case 9: /* the backend and the link */
		switch (how & 7) {
		case 0:
			virtio_net_detach(w->n);
			break;
		case 1:
			if (w->peer >= 0)
				close(w->peer);
			w->peer = -1;
			break;
		case 2:
			if (w->peer >= 0)
				shutdown(w->peer, fv_u8(f) % 3);
			break;
		case 3:
			virtio_net_set_link(w->n, fv_u8(f) & 1);
			break;
		default:
			plug(w);
		}
		break;
	case 10:
	case 11:
		packet(f, w, how);
		break;
	case 12:
		talk(f, w, fv_u8(f));
		break;
	case 13: /* rx buffers */
		for (unsigned i = 0; i <= how; i++)
			fv_chain(f, how & 1 ? 2 : 0, &(struct fv_seg){0x80000 + i * 0x2000, how & 2 ? 0x2000 : 0x600, true}, 1);
		fv_notify(f, how & 1 ? 2 : 0);
		break;
	case 14: { /* a control command */
		uint8_t cmd[4] = {how & 8 ? fv_u8(f) : 4, how & 4 ? fv_u8(f) : 0, how & 3, 0};
		mem_write(&f->mem, 0x3f000, cmd, sizeof(cmd));
		struct fv_seg seg[] = {{0x3f000, 4, false}, {0x3f010, 1, true}};
		fv_chain(f, 4, seg, 2);
		fv_notify(f, 4);
		break;
	}
	default:
		virtio_net_poll(w->n);
		if (how & 1)
			listen_to(w);
	}
}

static void destroy(struct fv *f)
{
	struct wire *w = f->device;
	struct virtio_net_stats s;
	virtio_net_poll(w->n);
	listen_to(w);
	virtio_net_get_stats(w->n, &s);
	must(s.pairs >= 1 && s.pairs <= 2);
	if (w->peer >= 0)
		close(w->peer);
	virtio_net_destroy(w->n);
	free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, extra}, data, size);
}
