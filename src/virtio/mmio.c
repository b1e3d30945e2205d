/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A register file over struct virtio_dev (virtio 1.2 section 4.2.2). The driver may write anything at any time: what it
 * writes is accepted only in the phase the specification gives it (features before FEATURES_OK, queue addresses between
 * FEATURES_OK and QueueReady), so that a running queue's addresses, once checked, cannot change.
 */
#include "virtio/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/util.h"
#include "virtio/virtio.h"

#define VENDOR_ID 0x4e534943u /* "CISN" */

static struct virtq *selected(struct virtio_dev *d)
{
	return d->queue_sel < d->ops->n_queues ? &d->q[d->queue_sel] : NULL;
}

static uint32_t read_reg(struct virtio_dev *d, uint64_t off)
{
	const struct virtq *q = selected(d);
	switch (off) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return 0x74726976; /* "virt" */
	case VIRTIO_MMIO_VERSION:
		return 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return d->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR_ID;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return d->features_sel < 2 ? (uint32_t)(d->features >> 32 * d->features_sel) : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? q->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q ? q->ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return d->isr;
	case VIRTIO_MMIO_STATUS:
		return d->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX; /* no such region */
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return d->config_generation;
	default:
		return 0;
	}
}

static void set_low(uint64_t *v, uint32_t x)
{
	*v = (*v & ~0xffffffffull) | x;
}

static void set_high(uint64_t *v, uint32_t x)
{
	*v = (*v & 0xffffffffull) | (uint64_t)x << 32;
}

static void write_queue_reg(struct virtio_dev *d, struct virtq *q, uint64_t off, uint32_t v)
{
	/* The one thing a running queue allows is to be taken down. */
	if (off == VIRTIO_MMIO_QUEUE_READY && !v) {
		virtq_reset(q);
		return;
	}
	if (q->ready || !q->max_size || !(d->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	switch (off) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->size = v <= q->max_size ? (uint16_t)v : 0; /* 0: QueueReady will be refused */
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_low(&q->desc, v);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_high(&q->desc, v);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_low(&q->avail, v);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_high(&q->avail, v);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_low(&q->used, v);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_high(&q->used, v);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		q->event_idx = virtio_dev_has(d, VIRTIO_RING_F_EVENT_IDX);
		q->indirect = virtio_dev_has(d, VIRTIO_RING_F_INDIRECT_DESC);
		if (v == 1 && virtq_start(q, d->mem) < 0)
			virtio_dev_fail(d, "queue addresses");
		break;
	default:
		break;
	}
}

static void write_reg(struct virtio_dev *d, uint64_t off, uint32_t v)
{
	switch (off) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		d->features_sel = v;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		d->driver_features_sel = v;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (d->status & VIRTIO_CONFIG_S_FEATURES_OK)
			break;
		if (d->driver_features_sel == 0)
			set_low(&d->driver_features, v);
		else if (d->driver_features_sel == 1)
			set_high(&d->driver_features, v);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		d->queue_sel = v;
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		virtio_dev_ack(d, v);
		break;
	case VIRTIO_MMIO_STATUS:
		virtio_dev_set_status(d, v);
		break;
	default:
		if (selected(d))
			write_queue_reg(d, selected(d), off, v);
	}
}

void virtio_mmio_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct virtio_dev *d = ctx;

	if (off >= VIRTIO_MMIO_CONFIG) {
		uint32_t at = (uint32_t)(off - VIRTIO_MMIO_CONFIG);
		if (off >= VIRTIO_MMIO_WINDOW || (len != 1 && len != 2 && len != 4 && len != 8)) {
			if (!is_write)
				memset(data, 0, len);
			return;
		}
		pthread_mutex_lock(&d->lock);
		if (!is_write)
			d->ops->config_read(d, at, data, len);
		else if (d->ops->config_write)
			d->ops->config_write(d, at, data, len);
		pthread_mutex_unlock(&d->lock);
		return;
	}
	if (len != 4 || off % 4) {
		if (!is_write)
			memset(data, 0, len);
		return;
	}
	if (is_write && off == VIRTIO_MMIO_QUEUE_NOTIFY) {
		virtio_dev_notify(d, load_le32(data)); /* takes the lock itself, in pieces */
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (is_write)
		write_reg(d, off, load_le32(data));
	else
		store_le32(data, read_reg(d, off));
	pthread_mutex_unlock(&d->lock);
}
