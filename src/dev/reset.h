/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways in which a guest asks to be reset or switched off: the keyboard controller's pulse (ports 0x60 and 0x64, command
 * 0xFE), port 0xCF9, and the ACPI reset, sleep control and sleep status registers (ACPI 6.5 sections 4.8.3.6 and 4.8.3.7).
 * The keyboard controller is a stub: no keyboard, an always ready input buffer.
 *
 * `ended` is called on the vCPU's thread that wrote, possibly by several at once; it should remember the first and stop the VM.
 */
#ifndef DEV_RESET_H
#define DEV_RESET_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"

enum reset_kind { RESET_REBOOT, RESET_POWEROFF };

#define RESET_SLEEP_S5 5u /* the SLP_TYP value of _S5 in the DSDT */

struct reset_dev {
	void (*ended)(void *ctx, enum reset_kind kind);
	void *ctx;
};

/* Puts all the windows on the port bus; dev is borrowed and must outlive it. Returns 0, or -1 when the bus is full or taken. */
int reset_attach(struct reset_dev *dev, struct bus *pio);

/* The windows' handlers, ctx = struct reset_dev, for tests. */
void reset_i8042_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write); /* base 0x60, 5 ports */
void reset_cf9_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write);
void reset_acpi_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write); /* LAYOUT_SLEEP_PORT, 3 ports */

#endif
