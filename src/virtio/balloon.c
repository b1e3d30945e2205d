/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Inflation: the driver sends arrays of 32-bit page numbers it will not use; runs of consecutive ones are discarded in one call
 * each. Deflation needs nothing from us: a discarded page reads as zero and comes back when touched. Reporting: chains
 * of writable segments that are free ranges of guest memory; they are discarded and the chain goes back, after which
 * the guest may use them again.
 *
 * Queue numbers: the specification numbers the reporting queue 4; Linux numbers only the queues that exist, which makes it 2
 * here, since neither statistics nor free page hints are offered. Both numbers are taken.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/util.h"

enum { Q_INFLATE, Q_DEFLATE, Q_REPORTING_COMPACT, Q_UNUSED, Q_REPORTING };

#define QUEUE_SIZE    128
#define MAX_PFNS      16384u /* in one chain; Linux sends 256 */
#define NOTIFY_BUDGET 16

struct virtio_balloon {
	struct virtio_dev dev;
	struct virtio_balloon_config config; /* num_pages is ours, actual the driver's */
	_Atomic uint64_t freed;
	struct virtq_chain chain;
};

static struct virtio_balloon *to_balloon(struct virtio_dev *d)
{
	return container_of(d, struct virtio_balloon, dev);
}

static void give_back(struct virtio_balloon *b, uint64_t gpa, uint64_t len)
{
	uint64_t from = align_up(gpa, MEM_PAGE_SIZE), to = align_down(gpa + len, MEM_PAGE_SIZE);
	if (from < to && mem_discard(b->dev.mem, from, to - from) == 0)
		atomic_fetch_add_explicit(&b->freed, to - from, memory_order_relaxed);
}

/* The pages of one inflation chain. -1: more than a driver may send at once. */
static int inflate(struct virtio_balloon *b)
{
	uint64_t n = b->chain.out_len / 4, start = 0, pages = 0;
	if (n > MAX_PFNS)
		return -1;
	for (uint64_t i = 0; i < n; i++) {
		uint32_t pfn;
		virtq_read(&b->chain, 4 * i, &pfn, sizeof(pfn));
		/* Checked page by page, so that one bad number does not cost the good ones beside it. */
		if (!mem_hva(b->dev.mem, (uint64_t)pfn << MEM_PAGE_SHIFT, MEM_PAGE_SIZE))
			continue;
		bool next = pages && pfn == start + pages &&
			    mem_hva(b->dev.mem, start << MEM_PAGE_SHIFT, (pages + 1) << MEM_PAGE_SHIFT);
		if (next) {
			pages++;
			continue;
		}
		give_back(b, start << MEM_PAGE_SHIFT, pages << MEM_PAGE_SHIFT);
		start = pfn;
		pages = 1;
	}
	give_back(b, start << MEM_PAGE_SHIFT, pages << MEM_PAGE_SHIFT);
	return 0;
}

static void reported(struct virtio_balloon *b)
{
	const struct virtq_chain *c = &b->chain;
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++)
		give_back(b, c->gpa[i], c->iov[i].iov_len);
}

static bool balloon_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_balloon *b = to_balloon(d);
	struct virtq *q = &d->q[queue];
	bool more = true, any = false;

	virtq_disable_notify(q, d->mem);
	for (unsigned n = 0; n < NOTIFY_BUDGET; n++) {
		int k = virtq_pop(q, d->mem, &b->chain);
		if (k == 0) {
			more = virtq_enable_notify(q, d->mem);
			break;
		}
		if (k > 0 && queue == Q_INFLATE)
			k = inflate(b) < 0 ? -1 : 1;
		else if (k > 0 && queue >= Q_REPORTING_COMPACT && virtio_dev_has(d, VIRTIO_BALLOON_F_REPORTING))
			reported(b);
		if (k < 0) {
			virtio_dev_fail(d, "chain");
			return false;
		}
		virtq_push(q, d->mem, b->chain.head, 0);
		any = true;
	}
	if (any)
		virtio_dev_used(d, q);
	return more;
}

static void balloon_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	struct virtio_balloon *b = to_balloon(d);
	virtio_config_copy(&b->config, sizeof(b->config), off, buf, len);
}

static void balloon_config_write(struct virtio_dev *d, uint32_t off, const void *buf, unsigned len)
{
	struct virtio_balloon *b = to_balloon(d);
	if (off == offsetof(struct virtio_balloon_config, actual) && len == 4)
		b->config.actual = load_le32(buf);
}

static void balloon_reset(struct virtio_dev *d)
{
	/* A driver that starts anew has all its pages. */
	to_balloon(d)->config.actual = 0;
}

static void balloon_save(struct virtio_dev *d, struct buf *out)
{
	struct virtio_balloon *b = to_balloon(d);
	buf_put_u32(out, b->config.num_pages);
	buf_put_u32(out, b->config.actual);
	buf_put_u64(out, atomic_load_explicit(&b->freed, memory_order_relaxed));
}

static int balloon_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	/* Any figures will do: the target is only told, and the others are only reported. */
	struct virtio_balloon *b = to_balloon(d);
	b->config.num_pages = buf_get_u32(r);
	b->config.actual = buf_get_u32(r);
	atomic_store_explicit(&b->freed, buf_get_u64(r), memory_order_relaxed);
	return 0;
}

static const struct virtio_dev_ops balloon_ops = {
	.name = "balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.n_queues = 5,
	.queue_size = {QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, 0, QUEUE_SIZE},
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.notify = balloon_notify,
	.reset = balloon_reset,
	.save = balloon_save,
	.load = balloon_load,
};

struct virtio_balloon *virtio_balloon_create(struct mem *mem, struct irq_line irq, struct cai_error *err)
{
	struct virtio_balloon *b = calloc(1, sizeof(*b));
	if (!b) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	uint64_t features = BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_REPORTING) |
			    BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC);
	virtio_dev_init(&b->dev, &balloon_ops, features, mem, irq);
	return b;
}

void virtio_balloon_destroy(struct virtio_balloon *b)
{
	if (!b)
		return;
	virtio_dev_fini(&b->dev);
	free(b);
}

struct virtio_dev *virtio_balloon_dev(struct virtio_balloon *b)
{
	return &b->dev;
}

void virtio_balloon_set_target(struct virtio_balloon *b, uint32_t pages)
{
	virtio_dev_lock(&b->dev);
	b->config.num_pages = pages;
	virtio_dev_config_changed(&b->dev);
	virtio_dev_unlock(&b->dev);
}

uint32_t virtio_balloon_actual(struct virtio_balloon *b)
{
	virtio_dev_lock(&b->dev);
	uint32_t n = b->config.actual;
	virtio_dev_unlock(&b->dev);
	return n;
}

uint64_t virtio_balloon_freed_bytes(struct virtio_balloon *b)
{
	return atomic_load_explicit(&b->freed, memory_order_relaxed);
}
