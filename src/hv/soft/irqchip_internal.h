/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupt controllers' own structures. Nothing but irqchip.c, lapic*.c and ioapic.c includes this.
 *
 * Who may touch what: `_Atomic` fields are read by any thread; IRR, TMR, pending errors, events and the timer's deadline are also
 * written by any thread, with single atomic operations; everything else in a lapic belongs to the vCPU's thread. The
 * IOAPIC's fields are under its lock, which is taken before any LAPIC is touched and never the other way round.
 */
#ifndef HV_SOFT_IRQCHIP_INTERNAL_H
#define HV_SOFT_IRQCHIP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv/soft/ioapic.h"
#include "hv/soft/lapic.h"

/* Registers by xAPIC offset / 16, which is also the x2APIC MSR - 0x800 (SDM vol. 3 tables 11-1 and 11-6). */
enum lapic_reg {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0A,
	REG_EOI = 0x0B,
	REG_RRD = 0x0C,
	REG_LDR = 0x0D,
	REG_DFR = 0x0E,
	REG_SVR = 0x0F,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR_LO = 0x30,
	REG_ICR_HI = 0x31,
	REG_LVT = 0x32, /* six entries, enum lapic_lvt */
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3E,
	REG_SELF_IPI = 0x3F,
};
enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, N_LVT };

#define BASE_BSP     (1u << 8)
#define BASE_X2APIC  (1u << 10)
#define BASE_ENABLED (1u << 11)
#define SVR_ENABLED  (1u << 8)
#define SVR_NO_EOI_BROADCAST (1u << 12)
#define LVT_MASKED   (1u << 16)
#define ESR_SEND_ILLEGAL_VECTOR    (1u << 5)
#define ESR_RECEIVE_ILLEGAL_VECTOR (1u << 6)
#define ESR_ILLEGAL_REGISTER       (1u << 7)

enum delivery_mode {
	DELIVER_FIXED = 0,
	DELIVER_LOWEST = 1,
	DELIVER_NMI = 4,
	DELIVER_INIT = 5,
	DELIVER_SIPI = 6,
};

/* LAPIC_EV_* in bits 0..7, the SIPI's vector in bits 8..15. */
#define EVENTS_SIPI_SHIFT 8

struct lapic {
	struct irqchip *chip;
	uint32_t id;

	_Atomic uint32_t *flag;
	uint32_t flag_bits;

	_Atomic uint32_t irr[8], tmr[8];
	_Atomic uint32_t events;
	_Atomic uint32_t errors; /* not yet moved to esr */
	_Atomic uint64_t base;   /* IA32_APIC_BASE */
	_Atomic uint32_t ldr, dfr, svr, lvt[N_LVT];

	_Atomic uint64_t deadline; /* CLOCK_MONOTONIC ns, or LAPIC_NO_DEADLINE */
	_Atomic uint64_t period;   /* ns; 0 unless periodic */

	uint32_t isr[8];
	uint32_t tpr, esr, icr_hi, icr_lo;
	uint32_t timer_initial, timer_divide;
	uint64_t tsc_deadline; /* as written; counts only while the deadline is armed */
	int64_t tsc_offset;
};

struct irqchip {
	unsigned n;
	irqchip_kick_fn *kick;
	irqchip_timer_fn *timer_changed;
	void *ctx, *timer_ctx;
	_Atomic uint32_t next_lowest; /* where the search for a lowest-priority target starts */
	struct lapic lapic[IRQCHIP_MAX_VCPUS];

	pthread_mutex_t ioapic_lock;
	struct ioapic_state ioapic;
};

/* One interrupt message (SDM vol. 3 section 11.6.1). */
struct irq_message {
	uint8_t vector;
	uint8_t mode;     /* enum delivery_mode */
	bool logical;     /* destination mode */
	bool level;
	bool wide;        /* the destination is a 32-bit x2APIC one, else 8 bits */
	uint32_t dest;
};

/* irqchip.c */
static inline uint32_t relaxed32(const _Atomic uint32_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}
static inline void set_relaxed32(_Atomic uint32_t *p, uint32_t v)
{
	atomic_store_explicit(p, v, memory_order_relaxed);
}
static inline bool lapic_x2(const struct lapic *l)
{
	return (atomic_load_explicit(&l->base, memory_order_relaxed) & (BASE_ENABLED | BASE_X2APIC)) ==
	       (BASE_ENABLED | BASE_X2APIC);
}
static inline bool lapic_on(const struct lapic *l)
{
	return atomic_load_explicit(&l->base, memory_order_relaxed) & BASE_ENABLED;
}
/* sender: the vCPU whose thread this is, which needs no kick; -1 for any other thread. */
unsigned irqchip_deliver(struct irqchip *c, const struct irq_message *msg, int sender);
unsigned irqchip_deliver_one(struct irqchip *c, unsigned target, const struct irq_message *msg, int sender);
void lapic_signal(struct lapic *l, int sender);
void lapic_error(struct lapic *l, uint32_t esr_bits, int sender);
bool lapic_accept(struct lapic *l, uint8_t vector, bool level, int sender);

/* ioapic.c */
void ioapic_eoi(struct irqchip *c, uint8_t vector, int sender);
void ioapic_reset(struct irqchip *c);

/* lapic_timer.c */
void timer_stop(struct lapic *l);
void timer_write_initial(struct lapic *l, uint32_t count, uint64_t now);
void timer_write_divide(struct lapic *l, uint32_t v, uint64_t now);
void timer_write_lvt(struct lapic *l, uint32_t v, uint64_t now);
void timer_write_tsc_deadline(struct lapic *l, uint64_t tsc, uint64_t now);
uint64_t timer_read_tsc_deadline(const struct lapic *l);
uint32_t timer_current_count(const struct lapic *l, uint64_t now);
void timer_restore(struct lapic *l, uint32_t current, uint64_t tsc_deadline, uint64_t now);

#endif
