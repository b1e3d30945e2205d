/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: whatever the mode, a running timer is one number, the CLOCK_MONOTONIC time at which it is due; the count
 * registers are computed from it when they are read. Anyone may find the timer due; the compare-and-swap on the deadline in
 * lapic_poll_timer() decides who fires it, so it fires once. The bus clock is 1 GHz: a count of one is `divider` nanoseconds.
 */
#include "hv/soft/irqchip_internal.h"

#define MODE_SHIFT        17
#define MODE_MASK         3u
#define MODE_ONE_SHOT     0u
#define MODE_PERIODIC     1u
#define MODE_TSC_DEADLINE 2u

#define MIN_PERIOD_NS 100000u

static unsigned mode_of(uint32_t lvt)
{
	return lvt >> MODE_SHIFT & MODE_MASK;
}

static unsigned mode(const struct lapic *l)
{
	return mode_of(relaxed32(&l->lvt[LVT_TIMER]));
}

/* Bits 0, 1 and 3 of the divide register: 0 is 2, 1 is 4, ... 6 is 128, 7 is 1. */
static uint64_t divider(uint32_t v)
{
	unsigned n = (v & 3) | (v >> 1 & 4);
	return n == 7 ? 1 : 2u << n;
}

static uint64_t deadline_of(const struct lapic *l)
{
	return atomic_load_explicit(&l->deadline, memory_order_relaxed);
}

static void arm(struct lapic *l, uint64_t deadline)
{
	/* Release: who fires it must see the period and the vector that belong to it. */
	uint64_t old = atomic_exchange_explicit(&l->deadline, deadline, memory_order_acq_rel);
	if (old != deadline && l->chip->timer_changed)
		l->chip->timer_changed(l->chip->timer_ctx, l->id);
}

void timer_stop(struct lapic *l)
{
	atomic_store_explicit(&l->period, 0, memory_order_relaxed);
	l->tsc_deadline = 0;
	arm(l, LAPIC_NO_DEADLINE);
}

static void set_period(struct lapic *l)
{
	uint64_t period = mode(l) == MODE_PERIODIC ? l->timer_initial * divider(l->timer_divide) : 0;
	/* A guest must not be able to keep a host thread busy with nothing but its timer. */
	if (period && period < MIN_PERIOD_NS)
		period = MIN_PERIOD_NS;
	atomic_store_explicit(&l->period, period, memory_order_relaxed);
}

static uint64_t after(uint64_t now, uint64_t delta)
{
	return delta < LAPIC_NO_DEADLINE - now ? now + delta : LAPIC_NO_DEADLINE - 1;
}

void timer_write_initial(struct lapic *l, uint32_t count, uint64_t now)
{
	if (mode(l) == MODE_TSC_DEADLINE)
		return;
	l->timer_initial = count;
	set_period(l);
	arm(l, count ? after(now, count * divider(l->timer_divide)) : LAPIC_NO_DEADLINE);
}

uint32_t timer_current_count(const struct lapic *l, uint64_t now)
{
	uint64_t d = deadline_of(l);
	if (d == LAPIC_NO_DEADLINE || mode(l) == MODE_TSC_DEADLINE || now >= d)
		return 0;
	uint64_t count = (d - now) / divider(l->timer_divide);
	return count < l->timer_initial ? (uint32_t)count : l->timer_initial;
}

void timer_write_divide(struct lapic *l, uint32_t v, uint64_t now)
{
	uint32_t left = timer_current_count(l, now);
	bool running = deadline_of(l) != LAPIC_NO_DEADLINE && mode(l) != MODE_TSC_DEADLINE;
	l->timer_divide = v & 0xB;
	set_period(l);
	if (running)
		arm(l, after(now, left * divider(l->timer_divide)));
}

void timer_write_lvt(struct lapic *l, uint32_t v, uint64_t now)
{
	unsigned old = mode(l);
	set_relaxed32(&l->lvt[LVT_TIMER], v);
	/* Changing to or from TSC-deadline mode disarms; between the others the count goes on (SDM vol. 3 section 11.5.4.1). */
	if ((old == MODE_TSC_DEADLINE) != (mode_of(v) == MODE_TSC_DEADLINE)) {
		timer_stop(l);
		l->timer_initial = 0;
	} else {
		set_period(l);
	}
}

/* TSC = now + tsc_offset. A deadline in the past is due at once. */
static uint64_t tsc_to_deadline(const struct lapic *l, uint64_t tsc, uint64_t now)
{
	uint64_t tsc_now = now + (uint64_t)l->tsc_offset;
	return tsc <= tsc_now ? now : after(now, tsc - tsc_now);
}

void timer_write_tsc_deadline(struct lapic *l, uint64_t tsc, uint64_t now)
{
	if (mode(l) != MODE_TSC_DEADLINE)
		return;
	l->tsc_deadline = tsc;
	arm(l, tsc ? tsc_to_deadline(l, tsc, now) : LAPIC_NO_DEADLINE);
}

uint64_t timer_read_tsc_deadline(const struct lapic *l)
{
	return mode(l) == MODE_TSC_DEADLINE && deadline_of(l) != LAPIC_NO_DEADLINE ? l->tsc_deadline : 0;
}

void timer_restore(struct lapic *l, uint32_t current, uint64_t tsc_deadline, uint64_t now)
{
	set_period(l);
	l->tsc_deadline = 0;
	if (mode(l) == MODE_TSC_DEADLINE)
		timer_write_tsc_deadline(l, tsc_deadline, now);
	else if (l->timer_initial && (current || mode(l) == MODE_PERIODIC))
		arm(l, after(now, current * divider(l->timer_divide)));
	else
		arm(l, LAPIC_NO_DEADLINE);
}

uint64_t lapic_timer_deadline(struct irqchip *c, unsigned vcpu)
{
	return deadline_of(&c->lapic[vcpu]);
}

bool lapic_poll_timer(struct irqchip *c, unsigned vcpu, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	uint64_t due = atomic_load_explicit(&l->deadline, memory_order_acquire);
	if (due == LAPIC_NO_DEADLINE || now < due)
		return false;
	uint64_t period = atomic_load_explicit(&l->period, memory_order_relaxed);
	/* Periods missed while nobody looked are one interrupt; the next keeps the phase. */
	uint64_t next = period ? after(now, period - (now - due) % period) : LAPIC_NO_DEADLINE;
	if (!atomic_compare_exchange_strong_explicit(&l->deadline, &due, next, memory_order_acq_rel, memory_order_relaxed))
		return false;
	uint32_t lvt = relaxed32(&l->lvt[LVT_TIMER]);
	if (!(lvt & LVT_MASKED))
		lapic_accept(l, (uint8_t)lvt, false, (int)vcpu);
	return true;
}

void lapic_set_tsc_offset(struct irqchip *c, unsigned vcpu, int64_t offset)
{
	struct lapic *l = &c->lapic[vcpu];
	uint64_t armed = deadline_of(l);
	if (mode(l) == MODE_TSC_DEADLINE && armed != LAPIC_NO_DEADLINE) {
		/* Move the deadline by as much as the TSC moved, the other way; before time 0 means due. */
		uint64_t shift = (uint64_t)offset - (uint64_t)l->tsc_offset;
		uint64_t moved = armed - shift;
		if ((int64_t)shift > 0 && moved > armed)
			moved = 0;
		else if ((int64_t)shift < 0 && (moved < armed || moved == LAPIC_NO_DEADLINE))
			moved = LAPIC_NO_DEADLINE - 1;
		arm(l, moved);
	}
	l->tsc_offset = offset;
}
