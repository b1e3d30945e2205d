/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2 section 5.2) over a raw file or block device: one queue, requests are carried out on the thread
 * that notifies. Read-only is enforced here, whatever the driver thinks. FLUSH is fdatasync; DISCARD and WRITE_ZEROES are
 * offered where the file system can punch holes.
 *
 * A slot may be created empty (capacity 0) and gets its backing later with virtio_blk_attach(), which raises a configuration
 * change; the driver then reads the new capacity. Features are fixed at creation: an empty slot created writable may get
 * a read-only backing later (writes then fail), but not the other way round.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "virtio/virtio.h"

#define VIRTIO_BLK_SERIAL_LEN 20

struct virtio_blk;

/* What has succeeded since the device was made. */
struct virtio_blk_stats {
	uint64_t read_bytes, reads;     /* reads, writes: requests */
	uint64_t written_bytes, writes;
};

/* fd: owned from a successful return on (on failure it stays the caller's); -1 makes an empty slot. serial: what GET_ID
 * answers, NUL-padded, not necessarily terminated. NULL on failure. */
struct virtio_blk *virtio_blk_create(struct mem *mem, struct irq_line irq, int fd, bool readonly,
				     const char serial[VIRTIO_BLK_SERIAL_LEN], struct cai_error *err);
/* After vCPUs have stopped. Closes the backing. NULL is allowed. */
void virtio_blk_destroy(struct virtio_blk *b);

struct virtio_dev *virtio_blk_dev(struct virtio_blk *b); /* for the transport; borrowed */

/* Gives an empty slot its backing. fd: owned from a successful return on. Any thread. */
int virtio_blk_attach(struct virtio_blk *b, int fd, bool readonly, struct cai_error *err);
/* The size the guest sees; 0: the slot is empty. Any thread. */
uint64_t virtio_blk_bytes(struct virtio_blk *b);
/* Takes the backing away again: capacity 0, later requests fail. Any thread. */
void virtio_blk_detach(struct virtio_blk *b);

void virtio_blk_get_stats(struct virtio_blk *b, struct virtio_blk_stats *s); /* any thread */

#endif
