/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: an interrupt message is routed to LAPICs by their identities; accepting it is one atomic OR into the target's
 * IRR followed by one into the flag word that the target's vCPU looks at, then a kick. There is no lock on this path, so any number
 * of device threads and vCPUs post at once, and the target learns of everything by one word.
 *
 * Ordering: the poster sets IRR before the flag (release); the vCPU clears the flag (acquire) before it reads IRR. So either it sees
 * the new bit, or the flag is set again after its clearing and it comes back. A poster that finds the IRR bit already set
 * does nothing more: the one who set it raises the flag.
 */
#include <stdlib.h>

#include "base/util.h"
#include "hv/soft/irqchip_internal.h"

struct irqchip *irqchip_new(unsigned n_vcpus, irqchip_kick_fn *kick, void *ctx)
{
	if (n_vcpus < 1 || n_vcpus > IRQCHIP_MAX_VCPUS)
		return NULL;
	struct irqchip *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->n = n_vcpus;
	c->kick = kick;
	c->ctx = ctx;
	pthread_mutex_init(&c->ioapic_lock, NULL);
	for (unsigned i = 0; i < n_vcpus; i++) {
		c->lapic[i].chip = c;
		c->lapic[i].id = i;
		lapic_reset(c, i, false);
	}
	ioapic_reset(c);
	return c;
}

void irqchip_free(struct irqchip *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->ioapic_lock);
	free(c);
}

void irqchip_set_flag(struct irqchip *c, unsigned vcpu, _Atomic uint32_t *word, uint32_t bits)
{
	c->lapic[vcpu].flag = word;
	c->lapic[vcpu].flag_bits = bits;
}

void irqchip_set_timer_hook(struct irqchip *c, irqchip_timer_fn *fn, void *ctx)
{
	c->timer_changed = fn;
	c->timer_ctx = ctx;
}

void lapic_signal(struct lapic *l, int sender)
{
	if (l->flag)
		atomic_fetch_or_explicit(l->flag, l->flag_bits, memory_order_acq_rel);
	if (sender != (int)l->id && l->chip->kick)
		l->chip->kick(l->chip->ctx, l->id);
}

bool lapic_accept(struct lapic *l, uint8_t vector, bool level, int sender)
{
	if (!lapic_on(l) || !(relaxed32(&l->svr) & SVR_ENABLED))
		return false;
	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_ILLEGAL_VECTOR, sender);
		return false;
	}
	uint32_t bit = 1u << (vector % 32);
	/* TMR says how to end the interrupt and must be right before the vector can be taken. */
	if (level)
		atomic_fetch_or_explicit(&l->tmr[vector / 32], bit, memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&l->tmr[vector / 32], ~bit, memory_order_relaxed);
	if (!(atomic_fetch_or_explicit(&l->irr[vector / 32], bit, memory_order_acq_rel) & bit))
		lapic_signal(l, sender);
	return true;
}

void lapic_error(struct lapic *l, uint32_t esr_bits, int sender)
{
	atomic_fetch_or_explicit(&l->errors, esr_bits, memory_order_relaxed);
	uint32_t lvt = relaxed32(&l->lvt[LVT_ERROR]);
	/* An illegal vector here would only report itself again. */
	if (!(lvt & LVT_MASKED) && (lvt & 0xFF) >= 16)
		lapic_accept(l, (uint8_t)lvt, false, sender);
}

static void post_event(struct lapic *l, uint32_t set, uint32_t clear, int sender)
{
	uint32_t old = atomic_load_explicit(&l->events, memory_order_relaxed), new;
	do
		new = (old & ~clear) | set;
	while (!atomic_compare_exchange_weak_explicit(&l->events, &old, new, memory_order_acq_rel, memory_order_relaxed));
	lapic_signal(l, sender);
}

unsigned irqchip_deliver_one(struct irqchip *c, unsigned target, const struct irq_message *msg, int sender)
{
	struct lapic *l = &c->lapic[target];
	if (!lapic_on(l))
		return 0;
	switch (msg->mode) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST:
		return lapic_accept(l, msg->vector, msg->level, sender);
	case DELIVER_NMI:
		post_event(l, LAPIC_EV_NMI, 0, sender);
		return 1;
	case DELIVER_INIT:
		/* An INIT overtakes an older SIPI: the guest sends the two in this order. */
		post_event(l, LAPIC_EV_INIT, LAPIC_EV_SIPI | 0xFFu << EVENTS_SIPI_SHIFT, sender);
		return 1;
	case DELIVER_SIPI:
		post_event(l, LAPIC_EV_SIPI | (uint32_t)msg->vector << EVENTS_SIPI_SHIFT, 0xFFu << EVENTS_SIPI_SHIFT, sender);
		return 1;
	default: /* SMI, ExtINT: there is neither system management mode nor an 8259 */
		return 0;
	}
}

static bool logical_match(const struct lapic *l, const struct irq_message *msg)
{
	uint32_t ldr = relaxed32(&l->ldr);
	if (lapic_x2(l))
		return msg->dest >> 16 == ldr >> 16 && (msg->dest & ldr & 0xFFFF);
	uint32_t id = ldr >> 24;
	if (msg->dest > 0xFF)
		return false;
	if (relaxed32(&l->dfr) >> 28 == 0xF) /* flat model */
		return msg->dest & id;
	return msg->dest >> 4 == id >> 4 && (msg->dest & id & 0xF);
}

static bool matches(const struct lapic *l, const struct irq_message *msg)
{
	if (msg->dest == (msg->wide ? 0xFFFFFFFFu : 0xFFu))
		return true;
	return msg->logical ? logical_match(l, msg) : l->id == msg->dest;
}

/* Returns how many LAPICs took it. */
unsigned irqchip_deliver(struct irqchip *c, const struct irq_message *msg, int sender)
{
	unsigned taken = 0, start = 0;
	bool lowest = msg->mode == DELIVER_LOWEST;
	/* Arbitration among equals is free: we go round. */
	if (lowest)
		start = atomic_fetch_add_explicit(&c->next_lowest, 1, memory_order_relaxed) % c->n;
	for (unsigned i = 0; i < c->n; i++) {
		unsigned target = (start + i) % c->n;
		if (!matches(&c->lapic[target], msg))
			continue;
		taken += irqchip_deliver_one(c, target, msg, sender);
		if (lowest && taken)
			break;
	}
	return taken;
}

void lapic_post_nmi(struct irqchip *c, unsigned vcpu)
{
	post_event(&c->lapic[vcpu], LAPIC_EV_NMI, 0, -1);
}

void lapic_post_irq(struct irqchip *c, unsigned vcpu, uint8_t vector, bool level)
{
	lapic_accept(&c->lapic[vcpu], vector, level, -1);
}

unsigned lapic_take_events(struct irqchip *c, unsigned vcpu, uint8_t *sipi_vector)
{
	struct lapic *l = &c->lapic[vcpu];
	if (relaxed32(&l->events) == 0)
		return 0;
	uint32_t ev = atomic_exchange_explicit(&l->events, 0, memory_order_acq_rel);
	*sipi_vector = (uint8_t)(ev >> EVENTS_SIPI_SHIFT);
	if (ev & LAPIC_EV_INIT)
		lapic_reset(c, vcpu, true);
	return ev & (LAPIC_EV_NMI | LAPIC_EV_INIT | LAPIC_EV_SIPI);
}
