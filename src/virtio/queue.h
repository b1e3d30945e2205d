/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, device side (virtio 1.2 section 2.7), with indirect descriptors and event indices.
 *
 * virtq_pop() is the one place where descriptors are read: it reads each once, checks it, and hands out a chain whose
 * segments lie in guest RAM, readable ones first. A driver that breaks the rules (an index out of range, a loop, a segment
 * outside RAM, a readable segment after a writable one, ...) marks the queue broken; the device then calls
 * virtio_dev_fail() and does nothing until it is reset. Nothing here keeps a host pointer between calls.
 *
 * Thread rules: the caller holds the device's lock.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/mem.h"

#define VIRTQ_MAX_SIZE 128 /* entries; no device of ours offers more */

struct virtq {
	uint16_t max_size;      /* what the device offers; 0: there is no such queue */
	uint16_t size;          /* what the driver chose: a power of two, at most max_size */
	bool ready;             /* QueueReady was accepted: addresses and size are valid */
	bool broken;            /* the driver broke the protocol; no more processing until reset */
	bool event_idx;         /* VIRTIO_F_EVENT_IDX was negotiated */
	bool indirect;          /* VIRTIO_F_INDIRECT_DESC was negotiated */
	bool signalled_valid;   /* signalled_used means something */
	uint16_t next_avail;    /* the next entry of the available ring to take, free-running */
	uint16_t next_used;     /* the next entry of the used ring to fill, free-running */
	uint16_t signalled_used; /* next_used when the driver was last asked about an interrupt */
	uint64_t desc, avail, used; /* guest-physical addresses of the three parts */
};

/* One chain. Segments [0, n_out) are to be read by the device, [n_out, n_out + n_in) to be written. Segments of length 0 are
 * left out. The pointers are valid until the device's lock is released. */
struct virtq_chain {
	uint16_t head;
	unsigned n_out, n_in;
	uint64_t out_len, in_len; /* bytes; together at most 4 GiB - 1 */
	struct iovec iov[VIRTQ_MAX_SIZE];
	uint64_t gpa[VIRTQ_MAX_SIZE]; /* where each iov lies in guest memory */
};

/* Checks size and addresses (power of two, alignment, all inside RAM) and makes the queue ready. 0, or -1: left not ready. */
int virtq_start(struct virtq *q, const struct mem *m);
/* Back to the state after reset; max_size stays. */
void virtq_reset(struct virtq *q);

/* Takes the next chain: 1, 0 when there is none, -1 when the driver broke the rules (q->broken is set). */
int virtq_pop(struct virtq *q, const struct mem *m, struct virtq_chain *c);
/* Gives the chain popped last back unused, so that the next virtq_pop() returns it again. */
void virtq_unpop(struct virtq *q);
/* Returns chain `head` to the driver, `written` bytes of its writable part having been filled from the start. */
void virtq_push(struct virtq *q, struct mem *m, uint16_t head, uint32_t written);
/* The same in two steps, for a packet that takes several chains, which the driver must see all at once: entry i of a group is
 * filled in without being shown, then the group's n entries are. A group is at most `size` entries. */
void virtq_fill(struct virtq *q, struct mem *m, unsigned i, uint16_t head, uint32_t written);
void virtq_publish(struct virtq *q, struct mem *m, unsigned n);
/* After pushes: must the driver be interrupted? Asks and remembers. */
bool virtq_should_interrupt(struct virtq *q, const struct mem *m);
/* Asks the driver to notify about new chains; true when there already is one, so that the caller must look again. */
bool virtq_enable_notify(struct virtq *q, struct mem *m);
/* Lets the driver leave out notifications while we look at the queue anyway. */
void virtq_disable_notify(struct virtq *q, struct mem *m);

/* Copies n bytes at offset off of the readable part to buf; false (nothing copied) when the chain is shorter. */
bool virtq_read(const struct virtq_chain *c, uint64_t off, void *buf, size_t n);
/* Copies into the writable part and reports the write to mem; false (nothing copied) when the chain is shorter. */
bool virtq_write(struct mem *m, const struct virtq_chain *c, uint64_t off, const void *buf, size_t n);
/* The segments of [off, off + n) of the readable or writable part, at most VIRTQ_MAX_SIZE; returns their number, stops at the
 * chain's end. */
unsigned virtq_slice(const struct virtq_chain *c, bool writable, uint64_t off, uint64_t n, struct iovec *out);
/* To be called after n bytes at off of the writable part were filled through virtq_slice(). */
void virtq_written(struct mem *m, const struct virtq_chain *c, uint64_t off, uint64_t n);

#endif
