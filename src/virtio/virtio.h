/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all virtio devices share (virtio 1.2 chapter 2): status, features, queues, interrupts, and the table of operations
 * that a device type fills in. The transport (virtio/mmio.h) drives a device through this; a device knows no transport.
 *
 * Thread rules: register accesses and notifications come from vCPU threads, several at once, back-ends run on the loop's
 * thread. Everything in struct virtio_dev is guarded by its lock; operations are called with it held. The interrupt line is
 * driven with the lock held, so that levels arrive in order: an interrupt controller must never call a device while it
 * holds a lock that irq_set() takes.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "bus/bus.h"
#include "mem/mem.h"
#include "virtio/queue.h"

#define VIRTIO_MAX_QUEUES 17 /* eight pairs and a control queue of a network device */

struct virtio_dev;

/* What a device type is. All functions are called with the lock held. */
struct virtio_dev_ops {
	const char *name;        /* for messages: "blk" */
	uint32_t device_id;      /* virtio 1.2 chapter 5 */
	unsigned n_queues;       /* at most VIRTIO_MAX_QUEUES */
	uint16_t queue_size[VIRTIO_MAX_QUEUES]; /* most entries of each, at most VIRTQ_MAX_SIZE; 0: no such queue */
	/* Reads len (1, 2, 4, 8) bytes of device configuration; what lies past its end reads as 0. */
	void (*config_read)(struct virtio_dev *d, uint32_t off, void *buf, unsigned len);
	/* Writes configuration; NULL where nothing is writable. */
	void (*config_write)(struct virtio_dev *d, uint32_t off, const void *buf, unsigned len);
	/* The driver has set DRIVER_OK. May be NULL. */
	void (*activate)(struct virtio_dev *d);
	/* Processes queue q, which is ready, with DRIVER_OK set. Handles a bounded number of chains and returns true when there
	 * is more, in which case it is called again. */
	bool (*notify)(struct virtio_dev *d, unsigned q);
	/* The driver reset the device: drop whatever belongs to the old driver. The queues are reset after it. May be NULL. */
	void (*reset)(struct virtio_dev *d);
	/* For snapshots (virtio/state.h), all three or none: without them the device can only be saved while no driver uses it. save appends what the
	 * device has beside its registers and queues; load takes it from a new device, whose backing is there already, and checks it. resume
	 * is called once after a load, before vCPUs run. */
	void (*save)(struct virtio_dev *d, struct buf *out);
	int (*load)(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err);
	void (*resume)(struct virtio_dev *d);
	uint64_t tolerated;      /* features that a saved driver may use although this device, with its present backing, does not offer them */
};

struct virtio_dev {
	const struct virtio_dev_ops *ops;
	pthread_mutex_t lock;
	atomic_uint waiting;      /* threads in virtio_dev_lock(): queue processing makes way for them */
	struct mem *mem;          /* borrowed */
	struct irq_line irq;
	int irqfd;                /* signalled instead of the line; borrowed; -1: none */
	/* registers: what a snapshot saves */
	uint64_t features;        /* offered */
	uint64_t driver_features; /* accepted by the driver */
	uint32_t status;          /* VIRTIO_CONFIG_S_* */
	uint32_t isr;             /* InterruptStatus: bit 0 used buffer, bit 1 configuration change */
	uint32_t config_generation;
	uint32_t features_sel, driver_features_sel, queue_sel;
	struct virtq q[VIRTIO_MAX_QUEUES];
};

/* For device types: fills *d in. features: the device's own plus VIRTIO_RING_F_*; VIRTIO_F_VERSION_1 is added. */
void virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_ops *ops, uint64_t features, struct mem *mem,
		     struct irq_line irq);
void virtio_dev_fini(struct virtio_dev *d);

/* For the machine: signal interrupts by writing 1 to this eventfd (an irqfd of KVM on an edge-triggered pin) instead of
 * driving the line. Borrowed. Before vCPUs run. */
void virtio_dev_set_irqfd(struct virtio_dev *d, int fd);

/* The driver has notified queue `queue` (any number; nonsense is ignored). Processes the queue before it returns, however much
 * the guest adds meanwhile: for vCPU threads, which have nothing else to do. Any thread. */
void virtio_dev_notify(struct virtio_dev *d, unsigned queue);
/* One bounded piece of the same, for the handler of an ioeventfd on a loop's thread: true when there is more, in which case
 * the handler makes sure to be called again (it writes the eventfd), so that no guest can hold the loop. Any thread. */
bool virtio_dev_process(struct virtio_dev *d, unsigned queue);

/* Takes the lock from outside of a vCPU's register access. */
void virtio_dev_lock(struct virtio_dev *d);
void virtio_dev_unlock(struct virtio_dev *d);

/* The rest is for device types, with the lock held. */

/* True when the driver is running the device: DRIVER_OK, and no reset is needed. */
bool virtio_dev_live(const struct virtio_dev *d);
static inline bool virtio_dev_has(const struct virtio_dev *d, unsigned feature_bit)
{
	return d->driver_features >> feature_bit & 1;
}
/* Chains were pushed on q: interrupts the driver if it wants that. */
void virtio_dev_used(struct virtio_dev *d, struct virtq *q);
/* The configuration space has changed: new generation, and an interrupt if the driver is up. */
void virtio_dev_config_changed(struct virtio_dev *d);
/* The driver broke the protocol: sets DEVICE_NEEDS_RESET, tells the driver, stops all processing until reset. */
void virtio_dev_fail(struct virtio_dev *d, const char *why);
/* A config_read over a plain structure. */
void virtio_config_copy(const void *config, size_t size, uint32_t off, void *buf, unsigned len);

/* For transports, with the lock held. */
void virtio_dev_set_status(struct virtio_dev *d, uint32_t status); /* 0 resets */
void virtio_dev_ack(struct virtio_dev *d, uint32_t bits);

#endif
