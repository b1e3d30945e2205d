/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest virtio driver: builds rings in a struct mem and talks to a device through its MMIO window only, as a guest
 * would. Guest memory is handed out from the start of RAM and never given back; a test's machine is small and short-lived.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"
#include "mem/mem.h"
#include "virtio/virtio.h"

#define DRV_MAX_QUEUES 17

struct drv_queue {
	unsigned size;
	uint64_t desc, avail, used; /* guest-physical */
	uint16_t next_desc;         /* descriptors are taken round robin: a test keeps fewer in flight than there are */
	uint16_t avail_idx, used_seen;
};

struct drv {
	struct mem mem;
	struct virtio_dev *dev;
	uint64_t brk;               /* next free guest address */
	struct drv_queue q[DRV_MAX_QUEUES];
	uint64_t features;          /* negotiated */
	/* the interrupt line */
	bool level;
	unsigned rises;
};

/* One segment of a chain. */
struct drv_seg {
	uint64_t gpa;
	uint32_t len;
	bool in; /* to be written by the device */
};

void drv_init(struct drv *d, uint64_t ram);
struct irq_line drv_irq(struct drv *d);
void drv_fini(struct drv *d);

uint32_t drv_read(struct drv *d, uint64_t off);
void drv_write(struct drv *d, uint64_t off, uint32_t v);
uint64_t drv_config(struct drv *d, unsigned off, unsigned len);

/* Resets and brings the device up with the given features (VERSION_1 is added) and its first n queues at most `size` long. */
void drv_start(struct drv *d, struct virtio_dev *dev, uint64_t features, unsigned n, unsigned size);

uint64_t drv_alloc(struct drv *d, uint64_t bytes, uint64_t align);
void *drv_ptr(struct drv *d, uint64_t gpa, uint64_t len);

/* Adds a chain and returns its head; does not notify. */
uint16_t drv_add(struct drv *d, unsigned q, const struct drv_seg *seg, unsigned n);
/* The same through an indirect table. */
uint16_t drv_add_indirect(struct drv *d, unsigned q, const struct drv_seg *seg, unsigned n);
void drv_desc(struct drv *d, unsigned q, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void drv_publish(struct drv *d, unsigned q, uint16_t head);
void drv_notify(struct drv *d, unsigned q);
/* Takes one used entry; false when there is none. */
bool drv_used(struct drv *d, unsigned q, uint16_t *head, uint32_t *len);
/* What an interrupt handler does: reads the status, acknowledges it, returns it. */
uint32_t drv_ack(struct drv *d);
bool drv_needs_reset(struct drv *d);

#endif
