/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: what is loaded goes through the same checks as what a driver writes: a queue becomes ready by virtq_start(), and
 * negotiated features must be ones that the device offers. Rings live in guest memory and need nothing. Indices may hold any value, as a
 * driver's own may.
 *
 * A notification is lost when it was in an eventfd at the moment of saving; so each ready queue is looked at once after a restore, which
 * costs nothing where there is nothing.
 */
#include "virtio/state.h"

#include <errno.h>
#include <linux/virtio_config.h>

#include "base/util.h"

#define KNOWN_STATUS                                                                                               \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK | \
	 VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

enum { Q_READY = 1, Q_BROKEN = 2, Q_EVENT_IDX = 4, Q_INDIRECT = 8, Q_SIGNALLED = 16, Q_ALL = 31 };

static void save_queue(const struct virtq *q, struct buf *out)
{
	buf_put_u16(out, q->max_size);
	buf_put_u16(out, q->size);
	buf_put_u16(out, (uint16_t)((q->ready ? Q_READY : 0) | (q->broken ? Q_BROKEN : 0) | (q->event_idx ? Q_EVENT_IDX : 0) |
				    (q->indirect ? Q_INDIRECT : 0) | (q->signalled_valid ? Q_SIGNALLED : 0)));
	buf_put_u16(out, q->next_avail);
	buf_put_u16(out, q->next_used);
	buf_put_u16(out, q->signalled_used);
	buf_put_u64(out, q->desc);
	buf_put_u64(out, q->avail);
	buf_put_u64(out, q->used);
}

int virtio_dev_save(struct virtio_dev *d, struct buf *out, struct cai_error *err)
{
	int rc = 0;
	virtio_dev_lock(d);
	buf_put_u32(out, d->ops->device_id);
	buf_put_u64(out, d->features);
	buf_put_u64(out, d->driver_features);
	buf_put_u32(out, d->status);
	buf_put_u32(out, d->isr);
	buf_put_u32(out, d->config_generation);
	buf_put_u32(out, d->features_sel);
	buf_put_u32(out, d->driver_features_sel);
	buf_put_u32(out, d->queue_sel);
	buf_put_u32(out, d->ops->n_queues);
	for (unsigned i = 0; i < d->ops->n_queues; i++)
		save_queue(&d->q[i], out);
	if (d->ops->save)
		d->ops->save(d, out);
	else if (d->status)
		rc = cai_fail(err, ENOTSUP, "a virtio-%s device in use cannot be saved", d->ops->name);
	virtio_dev_unlock(d);
	return rc;
}

static int load_queue(struct virtio_dev *d, unsigned i, struct buf_reader *r, struct cai_error *err)
{
	struct virtq *q = &d->q[i];
	uint16_t max_size = buf_get_u16(r), size = buf_get_u16(r), flags = buf_get_u16(r), next_avail = buf_get_u16(r),
		 next_used = buf_get_u16(r), signalled_used = buf_get_u16(r);
	uint64_t desc = buf_get_u64(r), avail = buf_get_u64(r), used = buf_get_u64(r);
	if (r->bad)
		return cai_fail(err, EINVAL, "it is cut short");
	if (max_size != q->max_size || size > max_size || (flags & ~Q_ALL))
		return cai_fail(err, EINVAL, "queue %u is of another kind than this device's", i);
	q->size = size;
	q->desc = desc;
	q->avail = avail;
	q->used = used;
	if (!(flags & Q_READY))
		return 0;
	/* What the transport makes a condition of QueueReady. */
	if (!max_size || !(d->status & VIRTIO_CONFIG_S_FEATURES_OK) || virtq_start(q, d->mem) < 0)
		return cai_fail(err, EINVAL, "queue %u is ready without addresses that fit guest memory", i);
	q->broken = flags & Q_BROKEN;
	q->event_idx = flags & Q_EVENT_IDX;
	q->indirect = flags & Q_INDIRECT;
	q->signalled_valid = flags & Q_SIGNALLED;
	q->next_avail = next_avail;
	q->next_used = next_used;
	q->signalled_used = signalled_used;
	return 0;
}

static int load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	uint32_t id = buf_get_u32(r);
	uint64_t features = buf_get_u64(r), driver = buf_get_u64(r);
	uint32_t status = buf_get_u32(r), isr = buf_get_u32(r);
	uint32_t generation = buf_get_u32(r), features_sel = buf_get_u32(r), driver_sel = buf_get_u32(r), queue_sel = buf_get_u32(r);
	uint32_t n_queues = buf_get_u32(r);
	if (r->bad)
		return cai_fail(err, EINVAL, "it is cut short");
	if (id != d->ops->device_id)
		return cai_fail(err, EINVAL, "it is of another device (%u) than the one here (%u)", id, d->ops->device_id);
	if (status && !d->ops->load)
		return cai_fail(err, ENOTSUP, "a virtio-%s device in use cannot be restored", d->ops->name);
	const uint64_t may = d->features | d->ops->tolerated;
	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && (driver & ~may))
		return cai_fail(err, ENOTSUP, "the guest's driver uses features 0x%llx, which this device does not have now",
				(unsigned long long)(driver & ~may));
	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && (!(driver & BIT(VIRTIO_F_VERSION_1)) || (driver & ~features)))
		return cai_fail(err, EINVAL, "its negotiated features contradict those it offers");
	if ((status & ~(uint32_t)KNOWN_STATUS) || (isr & ~3u) || n_queues != d->ops->n_queues)
		return cai_fail(err, EINVAL, "its registers hold what they cannot");
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return cai_fail(err, EINVAL, "its driver runs without negotiated features");
	d->features = (features & may) | BIT(VIRTIO_F_VERSION_1);
	d->driver_features = driver;
	d->status = status;
	d->isr = isr;
	d->config_generation = generation;
	d->features_sel = features_sel;
	d->driver_features_sel = driver_sel;
	d->queue_sel = queue_sel;
	for (unsigned i = 0; i < n_queues; i++)
		if (load_queue(d, i, r, err) < 0)
			return -1;
	if (d->ops->load && d->ops->load(d, r, err) < 0)
		return -1;
	return buf_done(r) ? 0 : cai_fail(err, EINVAL, "it has another size than such a device's");
}

int virtio_dev_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	virtio_dev_lock(d);
	int rc = load(d, r, err);
	virtio_dev_unlock(d);
	return rc;
}

void virtio_dev_resume(struct virtio_dev *d)
{
	virtio_dev_lock(d);
	if (d->ops->resume)
		d->ops->resume(d);
	virtio_dev_unlock(d);
	for (unsigned i = 0; i < d->ops->n_queues; i++)
		virtio_dev_notify(d, i);
}
