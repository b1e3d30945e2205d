/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz_virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "virtio/mmio.h"

#define RAM      MEM_MIN_BYTES
#define RINGS    0x1000u  /* three pages a queue */
#define DATA     0x20000u /* buffers */
#define MAX_OPS  512

uint8_t fv_u8(struct fv *f)
{
	if (!f->in.left)
		return 0;
	f->in.left--;
	return *f->in.p++;
}

uint16_t fv_u16(struct fv *f)
{
	uint16_t lo = fv_u8(f);
	return (uint16_t)(lo | fv_u8(f) << 8);
}

uint32_t fv_u32(struct fv *f)
{
	uint32_t lo = fv_u16(f);
	return lo | (uint32_t)fv_u16(f) << 16;
}

static void write_reg(struct fv *f, uint32_t off, uint32_t v)
{
	virtio_mmio_access(f->dev, off, &v, 4, true);
}

static uint32_t read_reg(struct fv *f, uint32_t off)
{
	uint32_t v = 0;
	virtio_mmio_access(f->dev, off, &v, 4, false);
	return v;
}

static uint64_t ring(unsigned q, unsigned part)
{
	return RINGS + (q * 3 + part) * 0x1000ull;
}

/* Brings the device up as a good driver would. */
static void set_up(struct fv *f, uint32_t features, unsigned log_size)
{
	write_reg(f, VIRTIO_MMIO_STATUS, 0);
	write_reg(f, VIRTIO_MMIO_STATUS, 3);
	write_reg(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	write_reg(f, VIRTIO_MMIO_DRIVER_FEATURES, features & (uint32_t)f->dev->features);
	write_reg(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	write_reg(f, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	write_reg(f, VIRTIO_MMIO_STATUS, 11);
	f->queue_size = 1u << log_size;
	for (unsigned q = 0; q < FV_QUEUES; q++) {
		write_reg(f, VIRTIO_MMIO_QUEUE_SEL, q);
		if (f->queue_size > read_reg(f, VIRTIO_MMIO_QUEUE_NUM_MAX))
			continue;
		memset(mem_hva(&f->mem, ring(q, 0), 0x3000), 0, 0x3000);
		f->next_desc[q] = f->avail_idx[q] = 0;
		write_reg(f, VIRTIO_MMIO_QUEUE_NUM, f->queue_size);
		write_reg(f, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)ring(q, 0));
		write_reg(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)ring(q, 1));
		write_reg(f, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)ring(q, 2));
		write_reg(f, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	write_reg(f, VIRTIO_MMIO_STATUS, 15);
}

void fv_notify(struct fv *f, uint32_t q)
{
	write_reg(f, VIRTIO_MMIO_QUEUE_NOTIFY, q);
}

void fv_chain(struct fv *f, unsigned q, const struct fv_seg *seg, unsigned n)
{
	if (q >= FV_QUEUES || !f->queue_size || !n)
		return;
	uint16_t head = f->next_desc[q] % f->queue_size, at = head;
	for (unsigned i = 0; i < n; i++) {
		uint16_t next = (uint16_t)((at + 1) % f->queue_size);
		struct vring_desc v = {.addr = seg[i].gpa, .len = seg[i].len, .next = next,
				       .flags = (uint16_t)((seg[i].in ? VRING_DESC_F_WRITE : 0) |
							   (i + 1 < n ? VRING_DESC_F_NEXT : 0))};
		mem_write(&f->mem, ring(q, 0) + 16 * at, &v, sizeof(v));
		at = next;
	}
	f->next_desc[q] = at;
	mem_write(&f->mem, ring(q, 1) + 4 + 2 * (f->avail_idx[q] % f->queue_size), &head, 2);
	f->avail_idx[q]++;
	mem_write(&f->mem, ring(q, 1) + 2, &f->avail_idx[q], 2);
}

unsigned fv_segments(struct fv *f, struct fv_seg *seg, unsigned max)
{
	unsigned n = fv_u8(f) % (max + 1);
	for (unsigned i = 0; i < n; i++) {
		uint8_t kind = fv_u8(f);
		uint16_t a = fv_u16(f), len = fv_u16(f);
		seg[i].in = kind & 1;
		seg[i].len = kind & 2 ? len : len & 0xff;
		switch (kind >> 2 & 7) {
		case 0:
			seg[i].gpa = RAM - (a & 0x3ff); /* at the end of RAM */
			break;
		case 1:
			seg[i].gpa = (uint64_t)a << 48 | len; /* anywhere */
			break;
		case 2:
			seg[i].gpa = RINGS + a % 0xf000u; /* into the rings themselves */
			break;
		case 3:
			seg[i].gpa = (uint64_t)a << 8;
			seg[i].len = (uint32_t)len << 8;
			break;
		default:
			seg[i].gpa = DATA + a;
		}
	}
	return n;
}

static void one(const struct fv_target *t, struct fv *f)
{
	uint8_t op = fv_u8(f);
	uint64_t v;
	switch (op % 16) {
	case 0:
		v = fv_u8(f);
		write_reg(f, (uint32_t)v * 4, fv_u32(f));
		break;
	case 1:
		read_reg(f, fv_u8(f) * 4u);
		break;
	case 2: {
		uint32_t off = fv_u16(f) & 0xfff;
		unsigned len = 1u << (op >> 4 & 3);
		v = fv_u32(f);
		virtio_mmio_access(f->dev, off, &v, len, op & 0x80);
		break;
	}
	case 3: {
		uint64_t at = fv_u16(f) * 4ull;
		for (unsigned n = fv_u8(f) % 65; n; n--, at++) {
			uint8_t b = fv_u8(f);
			mem_write(&f->mem, at, &b, 1);
		}
		break;
	}
	case 4:
		v = fv_u8(f);
		set_up(f, op & 0x80 ? ~0u : fv_u32(f), (unsigned)v % 8);
		break;
	case 5:
		fv_notify(f, op >> 4);
		break;
	case 6:
	case 7: {
		struct fv_seg seg[16];
		unsigned n = fv_segments(f, seg, 16);
		fv_chain(f, op >> 4, seg, n);
		if (op & 1)
			fv_notify(f, op >> 4);
		break;
	}
	case 8:
		write_reg(f, VIRTIO_MMIO_INTERRUPT_ACK, read_reg(f, VIRTIO_MMIO_INTERRUPT_STATUS));
		break;
	default:
		if (t->extra)
			t->extra(f, op);
	}
}

int fv_run(const struct fv_target *t, const uint8_t *data, size_t size)
{
	struct fv f = {.in = {data, size}};
	if (mem_create(&f.mem, RAM, NULL) < 0)
		abort();
	f.dev = t->create(&f);
	if (!f.dev)
		abort();
	for (unsigned n = 0; f.in.left && n < MAX_OPS; n++)
		one(t, &f);
	t->destroy(&f);
	mem_destroy(&f.mem);
	return 0;
}
