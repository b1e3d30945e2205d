/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a pin that is raised sends the message that its redirection entry describes. An edge is sent at once and
 * forgotten (and lost while masked, as on the chip). A level is sent when the pin is up, unmasked and remote IRR is clear; remote
 * IRR stays set until the EOI of the vector comes back, when a pin that is still up sends again.
 */
#include <string.h>

#include "base/util.h"
#include "hv/soft/irqchip_internal.h"

#define RTE_VECTOR      0xFFull
#define RTE_MODE_SHIFT  8
#define RTE_LOGICAL     BIT(11)
#define RTE_STATUS      BIT(12)
#define RTE_REMOTE_IRR  BIT(14)
#define RTE_LEVEL       BIT(15)
#define RTE_MASKED      BIT(16)
#define RTE_DEST_SHIFT  56
#define RTE_WRITABLE    (0xFF0000000001AFFFull)

#define OFF_SELECT 0x00u
#define OFF_WINDOW 0x10u
#define OFF_EOI    0x40u

#define IND_ID      0x00u
#define IND_VERSION 0x01u
#define IND_ARB     0x02u
#define IND_RTE     0x10u
#define VERSION_VALUE (0x20u | (IOAPIC_PINS - 1) << 16)

void ioapic_reset(struct irqchip *c)
{
	memset(&c->ioapic, 0, sizeof(c->ioapic));
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		c->ioapic.rte[i] = RTE_MASKED;
}

static unsigned send(struct irqchip *c, uint64_t rte, int sender)
{
	const struct irq_message msg = {
		.vector = (uint8_t)(rte & RTE_VECTOR),
		.mode = rte >> RTE_MODE_SHIFT & 7,
		.logical = rte & RTE_LOGICAL,
		.level = rte & RTE_LEVEL,
		.dest = (uint32_t)(rte >> RTE_DEST_SHIFT),
	};
	return irqchip_deliver(c, &msg, sender);
}

/* A level pin sends if it may. Remote IRR is set only when somebody took the message: nobody else would send an EOI. */
static void service_level(struct irqchip *c, unsigned pin, int sender)
{
	uint64_t *rte = &c->ioapic.rte[pin];
	if ((c->ioapic.level >> pin & 1) && (*rte & RTE_LEVEL) && !(*rte & (RTE_MASKED | RTE_REMOTE_IRR)) &&
	    send(c, *rte, sender) > 0)
		*rte |= RTE_REMOTE_IRR;
}

void irqchip_set_gsi(struct irqchip *c, unsigned gsi, bool level)
{
	if (gsi >= IOAPIC_PINS)
		return;
	uint32_t bit = 1u << gsi;
	pthread_mutex_lock(&c->ioapic_lock);
	bool rose = level && !(c->ioapic.level & bit);
	c->ioapic.level = level ? c->ioapic.level | bit : c->ioapic.level & ~bit;
	uint64_t rte = c->ioapic.rte[gsi];
	if (rte & RTE_LEVEL)
		service_level(c, gsi, -1);
	else if (rose && !(rte & RTE_MASKED))
		send(c, rte, -1);
	pthread_mutex_unlock(&c->ioapic_lock);
}

static void eoi_locked(struct irqchip *c, uint8_t vector, int sender)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *rte = &c->ioapic.rte[pin];
		if ((*rte & RTE_VECTOR) != vector || !(*rte & RTE_LEVEL) || !(*rte & RTE_REMOTE_IRR))
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		service_level(c, pin, sender);
	}
}

void ioapic_eoi(struct irqchip *c, uint8_t vector, int sender)
{
	pthread_mutex_lock(&c->ioapic_lock);
	eoi_locked(c, vector, sender);
	pthread_mutex_unlock(&c->ioapic_lock);
}

static uint32_t read_indirect(const struct ioapic_state *s)
{
	unsigned i = s->select - IND_RTE;
	switch (s->select) {
	case IND_ID:
	case IND_ARB:
		return (uint32_t)s->id << 24;
	case IND_VERSION:
		return VERSION_VALUE;
	default:
		if (s->select < IND_RTE || i / 2 >= IOAPIC_PINS)
			return 0xFFFFFFFF;
		return (uint32_t)(s->rte[i / 2] >> (i % 2 * 32));
	}
}

static void write_rte_half(struct irqchip *c, unsigned pin, bool high, uint32_t v)
{
	uint64_t old = c->ioapic.rte[pin];
	uint64_t new = high ? (old & 0xFFFFFFFFull) | (uint64_t)v << 32 : (old & ~0xFFFFFFFFull) | v;
	new = (new & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);
	/* Turning a pin to edge clears remote IRR: systems use that to end a level interrupt without an EOI. */
	if (!(new & RTE_LEVEL))
		new &= ~RTE_REMOTE_IRR;
	c->ioapic.rte[pin] = new;
	service_level(c, pin, -1);
}

static void write_indirect(struct irqchip *c, uint32_t v)
{
	struct ioapic_state *s = &c->ioapic;
	if (s->select == IND_ID) {
		s->id = v >> 24 & 0xF;
	} else if (s->select >= IND_RTE && (s->select - IND_RTE) / 2 < IOAPIC_PINS) {
		unsigned i = s->select - IND_RTE;
		write_rte_half(c, i / 2, i % 2, v);
	}
}

void ioapic_mmio(struct irqchip *c, uint64_t off, void *data, unsigned len, bool is_write)
{
	if (!is_write)
		memset(data, 0, len);
	if (len != 4 && !(len == 1 && off == OFF_SELECT))
		return;
	pthread_mutex_lock(&c->ioapic_lock);
	if (off == OFF_SELECT && is_write)
		c->ioapic.select = *(uint8_t *)data;
	else if (off == OFF_SELECT)
		*(uint8_t *)data = c->ioapic.select;
	else if (off == OFF_WINDOW && is_write)
		write_indirect(c, load_le32(data));
	else if (off == OFF_WINDOW)
		store_le32(data, read_indirect(&c->ioapic));
	else if (off == OFF_EOI && is_write)
		eoi_locked(c, *(uint8_t *)data, -1);
	pthread_mutex_unlock(&c->ioapic_lock);
}

void ioapic_save(struct irqchip *c, struct ioapic_state *st)
{
	pthread_mutex_lock(&c->ioapic_lock);
	*st = c->ioapic;
	pthread_mutex_unlock(&c->ioapic_lock);
}

void ioapic_load(struct irqchip *c, const struct ioapic_state *st)
{
	pthread_mutex_lock(&c->ioapic_lock);
	c->ioapic.id = st->id & 0xF;
	c->ioapic.select = st->select;
	c->ioapic.level = st->level & (uint32_t)(BIT(IOAPIC_PINS) - 1);
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		uint64_t rte = st->rte[i] & (RTE_WRITABLE | RTE_REMOTE_IRR);
		c->ioapic.rte[i] = rte & RTE_LEVEL ? rte : rte & ~RTE_REMOTE_IRR;
	}
	pthread_mutex_unlock(&c->ioapic_lock);
}
