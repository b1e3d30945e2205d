/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest against one virtio device: the input is a program of small operations on the device's registers, on guest
 * memory and on the queues, some well formed (so that the device gets past its first check) and some not.
 */
#ifndef FUZZ_VIRTIO_H
#define FUZZ_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/mem.h"
#include "virtio/virtio.h"

#define FV_QUEUES 5

/* The input, read from the front; gives zeroes when it is used up. */
struct fv_in {
	const uint8_t *p;
	size_t left;
};

struct fv {
	struct mem mem;
	struct virtio_dev *dev;
	struct fv_in in;
	void *device; /* of the target */
	unsigned queue_size;
	uint16_t next_desc[FV_QUEUES], avail_idx[FV_QUEUES];
};

/* What a target adds. */
struct fv_target {
	struct virtio_dev *(*create)(struct fv *f); /* sets f->device */
	void (*destroy)(struct fv *f);
	void (*extra)(struct fv *f, uint8_t op);    /* an operation of the target's own; may be NULL */
};

struct fv_seg {
	uint64_t gpa;
	uint32_t len;
	bool in;
};

uint8_t fv_u8(struct fv *f);
uint16_t fv_u16(struct fv *f);
uint32_t fv_u32(struct fv *f);

/* Puts a well-formed chain into queue q without notifying. */
void fv_chain(struct fv *f, unsigned q, const struct fv_seg *seg, unsigned n);
/* Segments as the input has them: addresses inside RAM, at its edges, and anywhere. */
unsigned fv_segments(struct fv *f, struct fv_seg *seg, unsigned max);
void fv_notify(struct fv *f, uint32_t q);

/* Runs the whole input. */
int fv_run(const struct fv_target *t, const uint8_t *data, size_t size);

#endif
