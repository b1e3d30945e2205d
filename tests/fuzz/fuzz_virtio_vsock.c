/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest against virtio-vsock, with clients on the host that open, write, read, half-close and close. At the end all
 * clients are closed and the driver is reset: then no connection may be left.
 */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/mmio.h"
#include "virtio/vsock.h"

#define CLIENTS 8

struct host {
	struct virtio_vsock *v;
	int client[CLIENTS];
	uint32_t packets;
};

static struct virtio_dev *create(struct fv *f)
{
	struct host *h = calloc(1, sizeof(*h));
	if (!h)
		abort();
	for (unsigned i = 0; i < CLIENTS; i++)
		h->client[i] = -1;
	h->v = virtio_vsock_create(&f->mem, (struct irq_line){0}, NULL, -1, NULL, NULL, NULL);
	if (!h->v)
		abort();
	f->device = h;
	return virtio_vsock_dev(h->v);
}

static void destroy(struct fv *f)
{
	struct host *h = f->device;
	uint32_t zero = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (h->client[i] >= 0)
			close(h->client[i]);
	virtio_vsock_poll(h->v);
	virtio_mmio_access(f->dev, 0x70, &zero, 4, true);
	virtio_vsock_poll(h->v);
	struct virtio_vsock_stats s;
	virtio_vsock_get_stats(h->v, &s);
	if (s.conns || s.waiting)
		abort();
	virtio_vsock_destroy(h->v);
	free(h);
}

/* A packet whose header is mostly right, in one or two segments. */
static void packet(struct fv *f, uint8_t how)
{
	struct host *h = f->device;
	uint8_t op = fv_u8(f), who = fv_u8(f), len = fv_u8(f);
	struct virtio_vsock_hdr k = {
		.src_cid = 3,
		.dst_cid = 2,
		.src_port = who >> 5,
		/* the first ports the device gives, or the agent's */
		.dst_port = op & 0x80 ? 1024 : 0x40000000u | (who & 7) | (uint32_t)(who >> 3 & 3) << 10,
		.type = 1,
		.op = op & 0x0f,
		.flags = how & 3,
		.buf_alloc = op & 0x40 ? fv_u32(f) : 65536,
		.fwd_cnt = op & 0x20 ? fv_u32(f) : h->packets,
		.len = len * (op & 0x10 ? 256u : 1u),
	};
	uint64_t at = 0x30000 + (h->packets++ % 64) * 0x40;
	mem_write(&f->mem, at, &k, sizeof(k));
	struct fv_seg seg[] = {{at, sizeof(k), false}, {0x40000, k.len, false}};
	fv_chain(f, 1, seg, k.len ? 2 : 1);
	fv_notify(f, 1);
}

static void extra(struct fv *f, uint8_t op)
{
	struct host *h = f->device;
	static uint8_t junk[16384];
	int *fd = &h->client[op >> 4 & 7], sv[2], small = 4096;
	ssize_t n;
	switch (op & 15) {
	case 9: /* a client comes, or does something */
		if (*fd < 0) {
			if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0)
				abort();
			/* a slow client is slow soon */
			setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
			if (virtio_vsock_open(h->v, op >> 5, sv[1], NULL) < 0)
				close(sv[1]);
			*fd = sv[0];
			break;
		}
		switch (fv_u8(f) & 3) {
		case 0:
			close(*fd);
			*fd = -1;
			break;
		case 1:
			shutdown(*fd, fv_u8(f) % 3);
			break;
		case 2:
			n = send(*fd, junk, fv_u16(f) % sizeof(junk), MSG_NOSIGNAL);
			(void)n;
			break;
		default:
			n = read(*fd, junk, sizeof(junk));
			(void)n;
		}
		break;
	case 10:
	case 11:
	case 12:
		packet(f, op >> 4);
		break;
	case 13: /* rx buffers */
		for (unsigned i = 0; i <= op >> 4; i++)
			fv_chain(f, 0, &(struct fv_seg){0x80000 + i * 0x1000, 0x1000, true}, 1);
		fv_notify(f, 0);
		break;
	default:
		virtio_vsock_poll(h->v);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, extra}, data, size);
}
