/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport, version 2 (virtio 1.2 section 4.2): a window of registers over a struct virtio_dev.
 * On the kernel's command line: virtio_mmio.device=4K@BASE:GSI.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_MMIO_WINDOW       0x1000u /* bytes of guest-physical address space a device takes */
#define VIRTIO_MMIO_NOTIFY       0x50u   /* offset of QueueNotify, for an ioeventfd (32-bit, datamatch = queue) */

/* A bus_access_fn; ctx is the struct virtio_dev *. Registers answer aligned 32-bit accesses only, the configuration space
 * (from 0x100) any of 1, 2, 4 and 8 bytes; everything else reads as 0 and ignores writes. */
void virtio_mmio_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write);

#endif
