/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: each chain's writable part is filled straight from getrandom(2), up to a bound, since a chain may name
 * all of RAM. The host's pool never blocks once it is initialised, so a request is answered at once.
 */
#include "virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"

#define QUEUE_SIZE    8
#define NOTIFY_BUDGET QUEUE_SIZE

struct virtio_rng {
	struct virtio_dev dev;
	struct virtq_chain chain;
};

/* Fills what it can of the chain; returns the bytes filled. */
static uint32_t fill(struct virtio_rng *r)
{
	const struct virtq_chain *c = &r->chain;
	uint32_t done = 0;
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++) {
		uint8_t *p = c->iov[i].iov_base;
		size_t n = c->iov[i].iov_len, got = 0;
		if (n > VIRTIO_RNG_MAX_REQUEST - done)
			n = VIRTIO_RNG_MAX_REQUEST - done;
		while (got < n) {
			ssize_t k = getrandom(p + got, n - got, 0);
			if (k < 0 && errno == EINTR)
				continue;
			if (k <= 0)
				break;
			got += (size_t)k;
		}
		mem_written(r->dev.mem, c->gpa[i], got);
		done += (uint32_t)got;
		if (got < c->iov[i].iov_len)
			break;
	}
	return done;
}

static bool rng_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, dev);
	struct virtq *q = &d->q[queue];
	bool more = true, any = false;

	virtq_disable_notify(q, d->mem);
	for (unsigned n = 0; n < NOTIFY_BUDGET; n++) {
		int k = virtq_pop(q, d->mem, &r->chain);
		if (k < 0) {
			virtio_dev_fail(d, "chain");
			return false;
		}
		if (k == 0) {
			more = virtq_enable_notify(q, d->mem);
			break;
		}
		virtq_push(q, d->mem, r->chain.head, fill(r));
		any = true;
	}
	if (any)
		virtio_dev_used(d, q);
	return more;
}

static void rng_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	memset(buf, 0, len); /* the device has no configuration space */
}

static void rng_save(struct virtio_dev *d, struct buf *out)
{
	/* It has no state of its own. */
}

static int rng_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	return 0;
}

static const struct virtio_dev_ops rng_ops = {
	.name = "rng",
	.device_id = VIRTIO_ID_RNG,
	.n_queues = 1,
	.queue_size = {QUEUE_SIZE},
	.config_read = rng_config_read,
	.notify = rng_notify,
	.save = rng_save,
	.load = rng_load,
};

struct virtio_rng *virtio_rng_create(struct mem *mem, struct irq_line irq, struct cai_error *err)
{
	struct virtio_rng *r = calloc(1, sizeof(*r));
	if (!r) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	virtio_dev_init(&r->dev, &rng_ops, BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC), mem, irq);
	return r;
}

void virtio_rng_destroy(struct virtio_rng *r)
{
	if (!r)
		return;
	virtio_dev_fini(&r->dev);
	free(r);
}

struct virtio_dev *virtio_rng_dev(struct virtio_rng *r)
{
	return &r->dev;
}
