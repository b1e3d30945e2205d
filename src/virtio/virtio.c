/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The state machine of section 2.1 (status), feature negotiation, and interrupts. A device's operations run only while the
 * driver is live; a failure is sticky until the driver resets.
 *
 * Interrupts. The line follows InterruptStatus != 0. On an edge-triggered pin a level that stays high is not seen again, and the
 * driver acknowledges only the bits it read: so each new cause lowers a line that is already up and raises it again. On
 * a level-triggered pin that is without effect.
 *
 * Making way. A guest with several vCPUs could keep one of them inside a notification for ever by feeding its queue from
 * another. Queue processing is therefore cut in bounded pieces, and between two of them the lock goes to whoever waits
 * in virtio_dev_lock(): the monitor's own threads are never shut out.
 */
#include "virtio/virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_mmio.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

/* What a driver may set; DEVICE_NEEDS_RESET is ours. */
#define DRIVER_STATUS                                                                                              \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |                        \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

void virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_ops *ops, uint64_t features, struct mem *mem,
		     struct irq_line irq)
{
	*d = (struct virtio_dev){.ops = ops,
				 .mem = mem,
				 .irq = irq,
				 .irqfd = -1,
				 .features = features | BIT(VIRTIO_F_VERSION_1)};
	pthread_mutex_init(&d->lock, NULL);
	for (unsigned i = 0; i < ops->n_queues; i++) {
		d->q[i].max_size = ops->queue_size[i];
		virtq_reset(&d->q[i]);
	}
}

void virtio_dev_fini(struct virtio_dev *d)
{
	pthread_mutex_destroy(&d->lock);
}

void virtio_dev_set_irqfd(struct virtio_dev *d, int fd)
{
	d->irqfd = fd;
}

void virtio_dev_lock(struct virtio_dev *d)
{
	atomic_fetch_add(&d->waiting, 1);
	pthread_mutex_lock(&d->lock);
	atomic_fetch_sub(&d->waiting, 1);
}

void virtio_dev_unlock(struct virtio_dev *d)
{
	pthread_mutex_unlock(&d->lock);
}

bool virtio_dev_live(const struct virtio_dev *d)
{
	return (d->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) == VIRTIO_CONFIG_S_DRIVER_OK;
}

static void raise_irq(struct virtio_dev *d, uint32_t bit)
{
	bool up = d->isr != 0;
	d->isr |= bit;
	if (d->irqfd >= 0) {
		uint64_t one = 1;
		ssize_t r = write(d->irqfd, &one, sizeof(one));
		(void)r; /* a full counter already is an interrupt */
		return;
	}
	if (up)
		irq_set(&d->irq, false);
	irq_set(&d->irq, true);
}

void virtio_dev_ack(struct virtio_dev *d, uint32_t bits)
{
	bool up = d->isr != 0;
	d->isr &= ~bits;
	if (up && !d->isr && d->irqfd < 0)
		irq_set(&d->irq, false);
}

void virtio_dev_used(struct virtio_dev *d, struct virtq *q)
{
	if (virtq_should_interrupt(q, d->mem))
		raise_irq(d, VIRTIO_MMIO_INT_VRING);
}

void virtio_dev_config_changed(struct virtio_dev *d)
{
	d->config_generation++;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		raise_irq(d, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_dev_fail(struct virtio_dev *d, const char *why)
{
	if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	log_debug("virtio-%s: the guest's driver broke the protocol (%s); the device stops until it is reset", d->ops->name, why);
	d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_dev_config_changed(d);
}

static void reset(struct virtio_dev *d)
{
	if (d->ops->reset)
		d->ops->reset(d);
	virtio_dev_ack(d, ~0u);
	d->status = 0;
	d->driver_features = 0;
	d->features_sel = d->driver_features_sel = d->queue_sel = 0;
	for (unsigned i = 0; i < d->ops->n_queues; i++)
		virtq_reset(&d->q[i]);
}

void virtio_dev_set_status(struct virtio_dev *d, uint32_t status)
{
	if (!status) {
		reset(d);
		return;
	}
	/* Bits are only ever added; a driver that wants one cleared resets. */
	uint32_t added = status & DRIVER_STATUS & ~d->status;
	if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
		/* The driver reads the status back and sees the refusal by the missing bit. */
		if ((d->driver_features & ~d->features) || !(d->driver_features & BIT(VIRTIO_F_VERSION_1)))
			added &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	}
	d->status |= added & ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
	if (!(added & VIRTIO_CONFIG_S_DRIVER_OK) || !(d->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	d->status |= VIRTIO_CONFIG_S_DRIVER_OK;
	if (virtio_dev_live(d) && d->ops->activate)
		d->ops->activate(d);
}

void virtio_dev_notify(struct virtio_dev *d, unsigned queue)
{
	if (queue >= d->ops->n_queues)
		return;
	pthread_mutex_lock(&d->lock);
	while (virtio_dev_live(d) && d->q[queue].ready && d->ops->notify(d, queue)) {
		if (!atomic_load(&d->waiting))
			continue;
		pthread_mutex_unlock(&d->lock);
		while (atomic_load(&d->waiting))
			sched_yield();
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
}

bool virtio_dev_process(struct virtio_dev *d, unsigned queue)
{
	if (queue >= d->ops->n_queues)
		return false;
	virtio_dev_lock(d);
	bool more = virtio_dev_live(d) && d->q[queue].ready && d->ops->notify(d, queue);
	virtio_dev_unlock(d);
	return more;
}

void virtio_config_copy(const void *config, size_t size, uint32_t off, void *buf, unsigned len)
{
	memset(buf, 0, len);
	if (off < size)
		memcpy(buf, (const uint8_t *)config + off, len < size - off ? len : size - off);
}
