/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software interrupt controllers, part 2: an IOAPIC of version 0x20 with 24 pins (Intel 82093AA data sheet; the EOI
 * register of version 0x20 included). GSI n is pin n. All functions may be called from any thread.
 */
#ifndef HV_SOFT_IOAPIC_H
#define HV_SOFT_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/soft/lapic.h"

#define IOAPIC_PINS 24u

struct ioapic_state {
	uint8_t id, select;
	uint32_t level;          /* the pins' levels, one bit each */
	uint64_t rte[IOAPIC_PINS]; /* redirection entries, remote IRR (bit 14) included */
};

/* Drives a pin. Edge pins fire when level rises; level pins as long as it is up. gsi >= IOAPIC_PINS is ignored. */
void irqchip_set_gsi(struct irqchip *c, unsigned gsi, bool level);

/* The register page at HV_IOAPIC_BASE: 32-bit registers at 0x00 (select), 0x10 (window) and 0x40 (EOI). */
void ioapic_mmio(struct irqchip *c, uint64_t off, void *data, unsigned len, bool is_write);

void ioapic_save(struct irqchip *c, struct ioapic_state *st);
/* Any content is safe to load. */
void ioapic_load(struct irqchip *c, const struct ioapic_state *st);

#endif
