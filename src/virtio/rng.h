/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.2 section 5.4): fills buffers from getrandom(2), at most VIRTIO_RNG_MAX_REQUEST bytes each. */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "base/error.h"
#include "virtio/virtio.h"

#define VIRTIO_RNG_MAX_REQUEST 65536u

struct virtio_rng;

struct virtio_rng *virtio_rng_create(struct mem *mem, struct irq_line irq, struct cai_error *err);
void virtio_rng_destroy(struct virtio_rng *r); /* after vCPUs have stopped; NULL is allowed */
struct virtio_dev *virtio_rng_dev(struct virtio_rng *r); /* for the transport; borrowed */

#endif
