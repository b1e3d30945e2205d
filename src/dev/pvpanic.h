/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pvpanic port (QEMU docs/specs/pvpanic): a guest that panics says so by writing a byte. A read gives the supported events.
 * `panicked` is called on the vCPU's thread that wrote.
 */
#ifndef DEV_PVPANIC_H
#define DEV_PVPANIC_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"

#define PVPANIC_PANICKED     0x01u /* bit 0: the guest kernel panicked */
#define PVPANIC_CRASH_LOADED 0x02u /* bit 1: it panicked and goes on in a crash kernel; not offered */

struct pvpanic {
	void (*panicked)(void *ctx);
	void *ctx;
};

/* Puts the port on the bus; dev is borrowed and must outlive it. Returns 0, or -1 when the bus is full or taken. */
int pvpanic_attach(struct pvpanic *dev, struct bus *pio);
/* The window's handler, ctx = struct pvpanic. */
void pvpanic_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write);

#endif
