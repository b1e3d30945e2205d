/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest and a hostile server against virtio-fs. Every request that reaches the server has the length it says, and
 * no more are in flight than may be.
 */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/fs.h"

#define REMEMBERED 64

struct wire {
	struct virtio_fs *fs;
	int peer;
	uint64_t unique[REMEMBERED];
	unsigned n;
	uint32_t skip; /* bytes of a request still to come */
	uint8_t head[40];
	uint32_t have;
};

static uint8_t buf[80000];

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void plug(struct wire *w)
{
	int sv[2], small = 20000;
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0);
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (virtio_fs_attach(w->fs, sv[0], NULL) < 0) {
		close(sv[0]);
		close(sv[1]);
		return;
	}
	if (w->peer >= 0)
		close(w->peer);
	w->peer = sv[1];
	w->skip = w->have = 0;
}

static struct virtio_dev *create(struct fv *f)
{
	struct wire *w = calloc(1, sizeof(*w));
	must(w != NULL);
	w->peer = -1;
	w->fs = virtio_fs_create(&f->mem, (struct irq_line){0}, NULL, -1, "tag\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", NULL);
	must(w->fs != NULL);
	f->device = w;
	if (fv_u8(f) & 1)
		plug(w);
	return virtio_fs_dev(w->fs);
}

static void hear_one(struct wire *w, const uint8_t *p, size_t n)
{
	while (n) {
		if (w->skip) {
			size_t k = n < w->skip ? n : w->skip;
			w->skip -= (uint32_t)k;
			p += k;
			n -= k;
			continue;
		}
		w->head[w->have++] = *p++;
		n--;
		if (w->have < sizeof(w->head))
			continue;
		struct fuse_in_header h;
		memcpy(&h, w->head, sizeof(h));
		must(h.len >= sizeof(h) && h.len <= VIRTIO_FS_MAX_MESSAGE);
		w->skip = h.len - (uint32_t)sizeof(h);
		w->have = 0;
		w->unique[w->n++ % REMEMBERED] = h.unique;
	}
}

static void hear(struct wire *w)
{
	ssize_t r;
	while (w->peer >= 0 && (r = recv(w->peer, buf, sizeof(buf), 0)) > 0)
		hear_one(w, buf, (size_t)r);
}

static void say(struct fv *f, struct wire *w, uint8_t how)
{
	if (w->peer < 0)
		return;
	struct fuse_out_header h = {.unique = w->unique[fv_u8(f) % REMEMBERED]};
	uint32_t body = how & 1 ? fv_u16(f) : fv_u8(f);
	h.len = (uint32_t)sizeof(h) + body;
	if (how & 2) {
		h.error = -(int32_t)fv_u8(f);
		body = 0;
		h.len = sizeof(h);
	}
	if ((how & 12) == 12) {
		h.len = fv_u32(f);
		h.unique ^= fv_u8(f);
	}
	memcpy(buf, &h, sizeof(h));
	memset(buf + sizeof(h), how, body);
	ssize_t r = send(w->peer, buf, sizeof(h) + body, MSG_NOSIGNAL);
	(void)r;
}

static void request(struct fv *f, uint8_t how)
{
	static const uint32_t ops[] = {FUSE_LOOKUP, FUSE_FORGET, FUSE_READ, FUSE_WRITE, FUSE_BATCH_FORGET, FUSE_INIT, FUSE_GETATTR, 0xffffffff};
	struct fuse_in_header h = {.opcode = ops[how & 7], .unique = fv_u8(f)};
	uint32_t body = fv_u16(f), room = fv_u16(f);
	h.len = how & 8 ? fv_u32(f) : (uint32_t)sizeof(h) + body;
	uint64_t at = 0x30000 + h.unique * 0x40;
	mem_write(&f->mem, at, &h, sizeof(h));
	struct fv_seg seg[] = {{at, sizeof(h), false}, {0x40000, body, false}, {0x80000 + h.unique * 0x1000, room, true}};
	struct fv_seg merged[] = {seg[0], seg[2]};
	fv_chain(f, how & 1, body ? seg : merged, body ? 3 : 2);
	fv_notify(f, how & 1);
}

static void extra(struct fv *f, uint8_t op)
{
	struct wire *w = f->device;
	uint8_t how = op >> 4;
	switch (op & 15) {
	case 9:
		if (how & 1) {
			plug(w);
		} else if (w->peer >= 0) {
			if (how & 2) {
				shutdown(w->peer, how >> 2 & 1);
			} else {
				close(w->peer);
				w->peer = -1;
			}
		}
		break;
	case 10:
	case 11:
		request(f, how);
		break;
	case 12:
	case 13:
		say(f, w, how);
		break;
	case 14:
		hear(w);
		break;
	default:
		virtio_fs_poll(w->fs);
		if (how & 1)
			hear(w);
	}
}

static void destroy(struct fv *f)
{
	struct wire *w = f->device;
	struct virtio_fs_stats s;
	virtio_fs_poll(w->fs);
	hear(w);
	virtio_fs_drain(w->fs, 0);
	virtio_fs_get_stats(w->fs, &s);
	must(s.in_flight <= VIRTIO_FS_MAX_REQUESTS && (s.connected || !s.in_flight));
	if (w->peer >= 0)
		close(w->peer);
	virtio_fs_destroy(w->fs);
	free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, extra}, data, size);
}
