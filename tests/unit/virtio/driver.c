/* SPDX-License-Identifier: Apache-2.0 */
#include "driver.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "virtio/mmio.h"

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "test driver: %s\n", what);
		abort();
	}
}

static void set_level(void *ctx, unsigned gsi, bool level)
{
	struct drv *d = ctx;
	if (level && !d->level)
		d->rises++;
	d->level = level;
}

void drv_init(struct drv *d, uint64_t ram)
{
	struct cai_error err;
	memset(d, 0, sizeof(*d));
	must(mem_create(&d->mem, ram, &err) == 0, "memory");
	d->brk = 0x10000;
}

struct irq_line drv_irq(struct drv *d)
{
	return (struct irq_line){.set = set_level, .ctx = d, .gsi = 5};
}

void drv_fini(struct drv *d)
{
	mem_destroy(&d->mem);
}

uint32_t drv_read(struct drv *d, uint64_t off)
{
	uint32_t v = 0;
	virtio_mmio_access(d->dev, off, &v, 4, false);
	return v;
}

void drv_write(struct drv *d, uint64_t off, uint32_t v)
{
	virtio_mmio_access(d->dev, off, &v, 4, true);
}

uint64_t drv_config(struct drv *d, unsigned off, unsigned len)
{
	uint64_t v = 0;
	virtio_mmio_access(d->dev, VIRTIO_MMIO_CONFIG + off, &v, len, false);
	return v;
}

uint64_t drv_alloc(struct drv *d, uint64_t bytes, uint64_t align)
{
	uint64_t at = align_up(d->brk, align);
	d->brk = at + bytes;
	must(drv_ptr(d, at, bytes) != NULL, "guest memory is used up");
	return at;
}

void *drv_ptr(struct drv *d, uint64_t gpa, uint64_t len)
{
	return mem_hva(&d->mem, gpa, len);
}

void drv_start(struct drv *d, struct virtio_dev *dev, uint64_t features, unsigned n, unsigned size)
{
	d->dev = dev;
	d->features = features | BIT(VIRTIO_F_VERSION_1);
	drv_write(d, VIRTIO_MMIO_STATUS, 0);
	drv_write(d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	drv_write(d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(d->features >> 32 * i));
	}
	uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
	drv_write(d, VIRTIO_MMIO_STATUS, status);
	must(drv_read(d, VIRTIO_MMIO_STATUS) == status, "features were refused");
	for (unsigned i = 0; i < n; i++) {
		struct drv_queue *q = &d->q[i];
		drv_write(d, VIRTIO_MMIO_QUEUE_SEL, i);
		unsigned max = drv_read(d, VIRTIO_MMIO_QUEUE_NUM_MAX);
		if (!max)
			continue;
		memset(q, 0, sizeof(*q));
		q->size = size < max ? size : max;
		q->desc = drv_alloc(d, 16 * q->size, 16);
		q->avail = drv_alloc(d, 6 + 2 * q->size, 2);
		q->used = drv_alloc(d, 6 + 8 * q->size, 4);
		drv_write(d, VIRTIO_MMIO_QUEUE_NUM, q->size);
		drv_write(d, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)q->desc);
		drv_write(d, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(q->desc >> 32));
		drv_write(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)q->avail);
		drv_write(d, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(q->avail >> 32));
		drv_write(d, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)q->used);
		drv_write(d, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(q->used >> 32));
		drv_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
		must(drv_read(d, VIRTIO_MMIO_QUEUE_READY) == 1, "a queue was refused");
	}
	drv_write(d, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void put_desc(uint8_t *table, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct vring_desc v = {.addr = addr, .len = len, .flags = flags, .next = next};
	memcpy(table + 16 * i, &v, sizeof(v));
}

void drv_desc(struct drv *d, unsigned q, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put_desc(drv_ptr(d, d->q[q].desc, 16 * d->q[q].size), i, addr, len, flags, next);
}

void drv_publish(struct drv *d, unsigned q, uint16_t head)
{
	struct drv_queue *k = &d->q[q];
	uint8_t *avail = drv_ptr(d, k->avail, 6 + 2 * k->size);
	store_le16(avail + 4 + 2 * (k->avail_idx % k->size), head);
	k->avail_idx++;
	__atomic_store_n((uint16_t *)(avail + 2), k->avail_idx, __ATOMIC_RELEASE);
}

uint16_t drv_add(struct drv *d, unsigned q, const struct drv_seg *seg, unsigned n)
{
	struct drv_queue *k = &d->q[q];
	uint16_t head = k->next_desc, at = head;
	for (unsigned i = 0; i < n; i++) {
		uint16_t next = (uint16_t)((at + 1) % k->size);
		drv_desc(d, q, at, seg[i].gpa, seg[i].len,
			 (uint16_t)((seg[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)), next);
		at = next;
	}
	k->next_desc = at;
	drv_publish(d, q, head);
	return head;
}

uint16_t drv_add_indirect(struct drv *d, unsigned q, const struct drv_seg *seg, unsigned n)
{
	struct drv_queue *k = &d->q[q];
	uint16_t head = k->next_desc;
	uint64_t table = drv_alloc(d, 16 * n, 16);
	uint8_t *p = drv_ptr(d, table, 16 * n);
	for (unsigned i = 0; i < n; i++)
		put_desc(p, i, seg[i].gpa, seg[i].len,
			 (uint16_t)((seg[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			 (uint16_t)(i + 1));
	drv_desc(d, q, head, table, 16 * n, VRING_DESC_F_INDIRECT, 0);
	k->next_desc = (uint16_t)((head + 1) % k->size);
	drv_publish(d, q, head);
	return head;
}

void drv_notify(struct drv *d, unsigned q)
{
	drv_write(d, VIRTIO_MMIO_QUEUE_NOTIFY, q);
}

bool drv_used(struct drv *d, unsigned q, uint16_t *head, uint32_t *len)
{
	struct drv_queue *k = &d->q[q];
	const uint8_t *used = drv_ptr(d, k->used, 6 + 8 * k->size);
	if (__atomic_load_n((const uint16_t *)(used + 2), __ATOMIC_ACQUIRE) == k->used_seen)
		return false;
	const uint8_t *e = used + 4 + 8 * (k->used_seen % k->size);
	if (head)
		*head = (uint16_t)load_le32(e);
	if (len)
		*len = load_le32(e + 4);
	k->used_seen++;
	return true;
}

uint32_t drv_ack(struct drv *d)
{
	uint32_t s = drv_read(d, VIRTIO_MMIO_INTERRUPT_STATUS);
	drv_write(d, VIRTIO_MMIO_INTERRUPT_ACK, s);
	return s;
}

bool drv_needs_reset(struct drv *d)
{
	return drv_read(d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}
