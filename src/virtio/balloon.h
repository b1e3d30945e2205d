/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.2 section 5.5): inflate, deflate, deflate on out-of-memory, and free page reporting. Pages the
 * guest gives up are returned to the host with mem_discard(); page numbers outside of RAM are ignored.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include <stdint.h>

#include "base/error.h"
#include "virtio/virtio.h"

struct virtio_balloon;

struct virtio_balloon *virtio_balloon_create(struct mem *mem, struct irq_line irq, struct cai_error *err);
void virtio_balloon_destroy(struct virtio_balloon *b); /* after vCPUs have stopped; NULL is allowed */
struct virtio_dev *virtio_balloon_dev(struct virtio_balloon *b); /* for the transport; borrowed */

/* Asks the guest to give up (or take back down to) this many 4 KiB pages. Any thread. */
void virtio_balloon_set_target(struct virtio_balloon *b, uint32_t pages);
/* Pages in the balloon by the guest's account (a number it may lie about). Any thread. */
uint32_t virtio_balloon_actual(struct virtio_balloon *b);
/* Bytes given back to the host so far, by reporting and by inflation; only grows. Any thread, takes no lock. */
uint64_t virtio_balloon_freed_bytes(struct virtio_balloon *b);

#endif
