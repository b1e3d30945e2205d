/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device's state in a snapshot: the transport's registers and the queues, then what the device type adds. Only while no vCPU
 * runs and the device loop stands still, when no request is half done: every request is served within one section of the device's lock.
 */
#ifndef VIRTIO_STATE_H
#define VIRTIO_STATE_H

#include "base/buf.h"
#include "base/error.h"
#include "virtio/virtio.h"

/* Appends the device's state. -1 with a sentence when the device cannot be saved in the state it is in. */
int virtio_dev_save(struct virtio_dev *d, struct buf *out, struct cai_error *err);

/*
 * Takes a saved state, all of r. The device is new, of the same type and with the backing it is to have. What is saved is hostile: each figure
 * is checked against what the driver could have brought about itself. The interrupt line is left alone: its level is the interrupt
 * controller's to restore.
 */
int virtio_dev_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err);

/* After virtio_dev_load() of every device, before vCPUs run: looks at all queues, since a notification may have been on its way when the guest
 * was stopped, and tells the driver what has changed with the new backing. */
void virtio_dev_resume(struct virtio_dev *d);

#endif
