/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the register file of one local APIC. xAPIC pages and x2APIC MSRs meet in read_reg() and write_reg(), which know
 * a register by its number; what differs between the modes (ICR's width, DFR, reserved bits that fault) is settled before.
 * Priorities are computed when asked for: PPR from TPR and the highest bit in ISR, the next interrupt from the highest in IRR.
 */
#include <string.h>

#include "base/util.h"
#include "hv/hv.h"
#include "hv/soft/irqchip_internal.h"

#define MSR_APIC_BASE    0x1Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define MSR_X2APIC       0x800u

#define VERSION_VALUE (0x14u | (N_LVT - 1) << 16 | 1u << 24 /* EOI broadcast can be suppressed */)
#define SVR_WRITABLE  (0xFFu | SVR_ENABLED | SVR_NO_EOI_BROADCAST)
#define ICR_WRITABLE  0x000CCFFFu

/* Vector, delivery mode where there is one, mask; trigger and polarity for the pins; mode for the timer. */
static const uint32_t lvt_writable[N_LVT] = {
	[LVT_TIMER] = 0x000700FF, [LVT_THERMAL] = 0x000107FF, [LVT_PERF] = 0x000107FF,
	[LVT_LINT0] = 0x0001A7FF, [LVT_LINT1] = 0x0001A7FF,   [LVT_ERROR] = 0x000100FF,
};

static int highest_bit(const uint32_t w[8])
{
	for (int i = 7; i >= 0; i--)
		if (w[i])
			return i * 32 + 31 - __builtin_clz(w[i]);
	return -1;
}

static int highest_irr(const struct lapic *l)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t w = atomic_load_explicit(&l->irr[i], memory_order_acquire);
		if (w)
			return i * 32 + 31 - __builtin_clz(w);
	}
	return -1;
}

static uint32_t ppr(const struct lapic *l)
{
	int isr = highest_bit(l->isr);
	uint32_t isr_class = isr < 0 ? 0 : (uint32_t)isr & 0xF0;
	return (l->tpr & 0xF0) >= isr_class ? l->tpr : isr_class;
}

int lapic_has_irq(struct irqchip *c, unsigned vcpu)
{
	const struct lapic *l = &c->lapic[vcpu];
	int v = highest_irr(l);
	if (v < 0 || !(relaxed32(&l->svr) & SVR_ENABLED) || ((uint32_t)v & 0xF0) <= (ppr(l) & 0xF0))
		return -1;
	return v;
}

int lapic_ack(struct irqchip *c, unsigned vcpu)
{
	struct lapic *l = &c->lapic[vcpu];
	int v = lapic_has_irq(c, vcpu);
	if (v < 0)
		return -1;
	atomic_fetch_and_explicit(&l->irr[v / 32], ~(1u << (v % 32)), memory_order_acq_rel);
	l->isr[v / 32] |= 1u << (v % 32);
	return v;
}

/* After the priority fell: what was held back may be taken now. */
static void recheck(struct lapic *l)
{
	if (lapic_has_irq(l->chip, l->id) >= 0)
		lapic_signal(l, (int)l->id);
}

static void end_of_interrupt(struct lapic *l)
{
	int v = highest_bit(l->isr);
	if (v < 0)
		return;
	l->isr[v / 32] &= ~(1u << (v % 32));
	if ((relaxed32(&l->tmr[v / 32]) & 1u << (v % 32)) && !(relaxed32(&l->svr) & SVR_NO_EOI_BROADCAST))
		ioapic_eoi(l->chip, (uint8_t)v, (int)l->id);
	recheck(l);
}

static void send_ipi(struct lapic *l, uint32_t lo, uint32_t dest, bool wide)
{
	struct irqchip *c = l->chip;
	struct irq_message msg = {
		.vector = (uint8_t)lo,
		.mode = lo >> 8 & 7,
		.logical = lo >> 11 & 1,
		.wide = wide,
		.dest = dest,
	};
	unsigned shorthand = lo >> 18 & 3;

	/* INIT level de-assert: a message of old bus protocols that means nothing here (SDM vol. 3 section 11.6.1). */
	if (msg.mode == DELIVER_INIT && (lo >> 15 & 1) && !(lo >> 14 & 1))
		return;
	if ((msg.mode == DELIVER_FIXED || msg.mode == DELIVER_LOWEST) && msg.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL_VECTOR, (int)l->id);
		return;
	}
	switch (shorthand) {
	case 0:
		irqchip_deliver(c, &msg, (int)l->id);
		break;
	case 1: /* self: only fixed delivery is defined */
		if (msg.mode == DELIVER_FIXED)
			irqchip_deliver_one(c, l->id, &msg, (int)l->id);
		break;
	default: /* all, with (2) or without (3) self */
		for (unsigned i = 0; i < c->n; i++)
			if (shorthand == 2 || i != l->id)
				irqchip_deliver_one(c, i, &msg, (int)l->id);
		break;
	}
}

static uint32_t x2apic_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

/* False when there is no such register. */
static bool read_reg(struct lapic *l, unsigned reg, uint32_t *v, uint64_t now)
{
	*v = 0;
	switch (reg) {
	case REG_ID:
		*v = lapic_x2(l) ? l->id : l->id << 24;
		return true;
	case REG_VERSION:
		*v = VERSION_VALUE;
		return true;
	case REG_TPR:
		*v = l->tpr;
		return true;
	case REG_PPR:
		*v = ppr(l);
		return true;
	case REG_LDR:
		*v = relaxed32(&l->ldr);
		return true;
	case REG_DFR:
		*v = relaxed32(&l->dfr);
		return true;
	case REG_SVR:
		*v = relaxed32(&l->svr);
		return true;
	case REG_ISR ... REG_ISR + 7:
		*v = l->isr[reg - REG_ISR];
		return true;
	case REG_TMR ... REG_TMR + 7:
		*v = relaxed32(&l->tmr[reg - REG_TMR]);
		return true;
	case REG_IRR ... REG_IRR + 7:
		*v = relaxed32(&l->irr[reg - REG_IRR]);
		return true;
	case REG_ESR:
		*v = l->esr;
		return true;
	case REG_ICR_LO:
		*v = l->icr_lo;
		return true;
	case REG_ICR_HI:
		*v = l->icr_hi;
		return true;
	case REG_LVT ... REG_LVT + N_LVT - 1:
		*v = relaxed32(&l->lvt[reg - REG_LVT]);
		return true;
	case REG_TIMER_INITIAL:
		*v = l->timer_initial;
		return true;
	case REG_TIMER_CURRENT:
		*v = timer_current_count(l, now);
		return true;
	case REG_TIMER_DIVIDE:
		*v = l->timer_divide;
		return true;
	default:
		return false;
	}
}

static void write_svr(struct lapic *l, uint32_t v)
{
	set_relaxed32(&l->svr, v & SVR_WRITABLE);
	if (v & SVR_ENABLED) {
		recheck(l);
		return;
	}
	/* Disabling by software masks all local interrupts; what is pending stays. */
	for (unsigned i = 0; i < N_LVT; i++)
		set_relaxed32(&l->lvt[i], relaxed32(&l->lvt[i]) | LVT_MASKED);
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t v, uint64_t now)
{
	v &= lvt_writable[i];
	if (!(relaxed32(&l->svr) & SVR_ENABLED))
		v |= LVT_MASKED;
	if (i == LVT_TIMER)
		timer_write_lvt(l, v, now);
	else
		set_relaxed32(&l->lvt[i], v);
}

static void write_tpr(struct lapic *l, uint32_t v)
{
	uint32_t old = l->tpr;
	l->tpr = v & 0xFF;
	if (l->tpr < old)
		recheck(l);
}

/* False when there is no such register or it is read-only. ICR is written by the callers. */
static bool write_reg(struct lapic *l, unsigned reg, uint32_t v, uint64_t now)
{
	switch (reg) {
	case REG_TPR:
		write_tpr(l, v);
		return true;
	case REG_EOI:
		end_of_interrupt(l);
		return true;
	case REG_LDR:
		set_relaxed32(&l->ldr, v & 0xFF000000u);
		return true;
	case REG_DFR:
		set_relaxed32(&l->dfr, v | 0x0FFFFFFFu);
		return true;
	case REG_SVR:
		write_svr(l, v);
		return true;
	case REG_ESR: /* any write moves the collected errors into view */
		l->esr = atomic_exchange_explicit(&l->errors, 0, memory_order_relaxed);
		return true;
	case REG_LVT ... REG_LVT + N_LVT - 1:
		write_lvt(l, reg - REG_LVT, v, now);
		return true;
	case REG_TIMER_INITIAL:
		timer_write_initial(l, v, now);
		return true;
	case REG_TIMER_DIVIDE:
		timer_write_divide(l, v, now);
		return true;
	default:
		return false;
	}
}

bool lapic_mmio(struct irqchip *c, unsigned vcpu, uint64_t off, void *data, unsigned len, bool is_write, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	if (!lapic_on(l) || lapic_x2(l))
		return false;
	if (!is_write)
		memset(data, 0, len);
	if (len != 4 || off % 16 || off >= X86_LAPIC_REGS * 16)
		return true;

	unsigned reg = (unsigned)off / 16;
	uint32_t v;
	bool ok = true;
	if (!is_write) {
		ok = read_reg(l, reg, &v, now);
		store_le32(data, v);
		/* Readable on old APICs, gone on this one; no error. */
		ok |= reg == REG_APR || reg == REG_RRD || reg == REG_EOI;
	} else {
		v = load_le32(data);
		if (reg == REG_ICR_LO) {
			l->icr_lo = v & ICR_WRITABLE;
			send_ipi(l, l->icr_lo, l->icr_hi >> 24, false);
		} else if (reg == REG_ICR_HI) {
			l->icr_hi = v & 0xFF000000u;
		} else if (reg != REG_ID) { /* the id is ours and stays */
			ok = write_reg(l, reg, v, now);
		}
	}
	if (!ok)
		lapic_error(l, ESR_ILLEGAL_REGISTER, (int)vcpu);
	return true;
}

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *val, uint64_t now)
{
	uint32_t v;
	if (reg == REG_ICR_LO) {
		*val = (uint64_t)l->icr_hi << 32 | l->icr_lo;
		return 0;
	}
	if (reg == REG_DFR || reg == REG_ICR_HI || !read_reg(l, reg, &v, now))
		return -1;
	*val = v;
	return 0;
}

/* Bits that may be set in a write to an x2APIC register; all others fault (SDM vol. 3 table 11-6). */
static uint64_t x2apic_writable(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xFF;
	case REG_SVR:
		return SVR_WRITABLE;
	case REG_ICR_LO:
		/* The delivery status bit is ignored rather than faulted: software writes back what it read. */
		return 0xFFFFFFFF00000000u | ICR_WRITABLE | 1u << 12;
	case REG_LVT ... REG_LVT + N_LVT - 1:
		return lvt_writable[reg - REG_LVT] | 1u << 12 | 1u << 14;
	case REG_TIMER_INITIAL:
		return 0xFFFFFFFF;
	case REG_TIMER_DIVIDE:
		return 0xB;
	default: /* EOI and ESR take 0 */
		return 0;
	}
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t val, uint64_t now)
{
	if (val & ~x2apic_writable(reg))
		return -1;
	switch (reg) {
	case REG_ICR_LO:
		l->icr_lo = (uint32_t)val & ICR_WRITABLE;
		l->icr_hi = (uint32_t)(val >> 32);
		send_ipi(l, l->icr_lo, l->icr_hi, true);
		return 0;
	case REG_SELF_IPI:
		send_ipi(l, 1u << 18 | (uint32_t)val, 0, true);
		return 0;
	case REG_LDR:
	case REG_DFR:
		return -1;
	default:
		return write_reg(l, reg, (uint32_t)val, now) ? 0 : -1;
	}
}

/* Mode changes (SDM vol. 3 figure 11-27): off to xAPIC to x2APIC and from either to off. The page does not move. */
static int write_base(struct lapic *l, uint64_t val)
{
	uint64_t old = atomic_load_explicit(&l->base, memory_order_relaxed);
	const uint64_t mode_bits = BASE_ENABLED | BASE_X2APIC;
	uint64_t from = old & mode_bits, to = val & mode_bits;

	if ((val & ~(mode_bits | BASE_BSP)) != HV_LAPIC_BASE || to == BASE_X2APIC ||
	    (from == 0 && to == mode_bits) || (from == mode_bits && to == BASE_ENABLED))
		return -1;
	if (from == to)
		return 0;
	if (to == 0)
		lapic_reset(l->chip, l->id, true);
	atomic_store_explicit(&l->base, HV_LAPIC_BASE | (old & BASE_BSP) | to, memory_order_relaxed);
	if (to == mode_bits)
		set_relaxed32(&l->ldr, x2apic_ldr(l->id));
	return 0;
}

int lapic_msr_read(struct irqchip *c, unsigned vcpu, uint32_t msr, uint64_t *val, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	if (msr == MSR_APIC_BASE) {
		*val = atomic_load_explicit(&l->base, memory_order_relaxed);
		return 0;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*val = timer_read_tsc_deadline(l);
		return 0;
	}
	if (!lapic_x2(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC + X86_LAPIC_REGS)
		return -1;
	return x2apic_read(l, msr - MSR_X2APIC, val, now);
}

int lapic_msr_write(struct irqchip *c, unsigned vcpu, uint32_t msr, uint64_t val, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	if (msr == MSR_APIC_BASE)
		return write_base(l, val);
	if (msr == MSR_TSC_DEADLINE) {
		timer_write_tsc_deadline(l, val, now);
		return 0;
	}
	if (!lapic_x2(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC + X86_LAPIC_REGS)
		return -1;
	return x2apic_write(l, msr - MSR_X2APIC, val, now);
}

uint64_t lapic_get_cr8(struct irqchip *c, unsigned vcpu)
{
	return c->lapic[vcpu].tpr >> 4;
}

void lapic_set_cr8(struct irqchip *c, unsigned vcpu, uint64_t val)
{
	write_tpr(&c->lapic[vcpu], (uint32_t)(val & 15) << 4);
}

void lapic_reset(struct irqchip *c, unsigned vcpu, bool init)
{
	struct lapic *l = &c->lapic[vcpu];
	if (!init) {
		atomic_store_explicit(&l->base, HV_LAPIC_BASE | BASE_ENABLED | (l->id == 0 ? BASE_BSP : 0),
				      memory_order_relaxed);
		set_relaxed32(&l->events, 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		set_relaxed32(&l->irr[i], 0);
		set_relaxed32(&l->tmr[i], 0);
		l->isr[i] = 0;
	}
	for (unsigned i = 0; i < N_LVT; i++)
		set_relaxed32(&l->lvt[i], LVT_MASKED);
	set_relaxed32(&l->errors, 0);
	set_relaxed32(&l->svr, 0xFF);
	set_relaxed32(&l->dfr, 0xFFFFFFFF);
	set_relaxed32(&l->ldr, lapic_x2(l) ? x2apic_ldr(l->id) : 0);
	l->tpr = l->esr = l->icr_hi = l->icr_lo = 0;
	l->timer_initial = l->timer_divide = 0;
	timer_stop(l);
}

void lapic_save(struct irqchip *c, unsigned vcpu, struct x86_state *s, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	memset(s->lapic, 0, sizeof(s->lapic));
	for (unsigned reg = 0; reg < X86_LAPIC_REGS; reg++)
		read_reg(l, reg, &s->lapic[reg], now);
	s->lapic[REG_ID] = l->id << 24; /* in either mode, as KVM keeps it */
	s->cr8 = l->tpr >> 4;
	s->apic_base = atomic_load_explicit(&l->base, memory_order_relaxed);
	s->tsc_deadline = timer_read_tsc_deadline(l);
	s->nmi_pending = relaxed32(&l->events) & LAPIC_EV_NMI ? 1 : 0;
}

void lapic_load(struct irqchip *c, unsigned vcpu, const struct x86_state *s, uint64_t now)
{
	struct lapic *l = &c->lapic[vcpu];
	lapic_reset(c, vcpu, false);
	uint64_t mode_bits = s->apic_base & (BASE_ENABLED | BASE_X2APIC | BASE_BSP);
	if (!(mode_bits & BASE_ENABLED))
		mode_bits &= ~(uint64_t)BASE_X2APIC;
	atomic_store_explicit(&l->base, HV_LAPIC_BASE | mode_bits, memory_order_relaxed);
	l->tpr = s->lapic[REG_TPR] & 0xFF;
	set_relaxed32(&l->ldr, lapic_x2(l) ? x2apic_ldr(l->id) : s->lapic[REG_LDR] & 0xFF000000u);
	set_relaxed32(&l->dfr, s->lapic[REG_DFR] | 0x0FFFFFFFu);
	set_relaxed32(&l->svr, s->lapic[REG_SVR] & SVR_WRITABLE);
	for (unsigned i = 0; i < 8; i++) {
		/* Vectors 0..15 do not exist. */
		uint32_t legal = i == 0 ? 0xFFFF0000u : 0xFFFFFFFFu;
		l->isr[i] = s->lapic[REG_ISR + i] & legal;
		set_relaxed32(&l->tmr[i], s->lapic[REG_TMR + i] & legal);
		set_relaxed32(&l->irr[i], s->lapic[REG_IRR + i] & legal);
	}
	l->esr = s->lapic[REG_ESR] & 0xFF;
	l->icr_lo = s->lapic[REG_ICR_LO] & ICR_WRITABLE;
	l->icr_hi = lapic_x2(l) ? s->lapic[REG_ICR_HI] : s->lapic[REG_ICR_HI] & 0xFF000000u;
	for (unsigned i = 0; i < N_LVT; i++)
		set_relaxed32(&l->lvt[i], s->lapic[REG_LVT + i] & lvt_writable[i]);
	l->timer_initial = s->lapic[REG_TIMER_INITIAL];
	l->timer_divide = s->lapic[REG_TIMER_DIVIDE] & 0xB;
	timer_restore(l, s->lapic[REG_TIMER_CURRENT], s->tsc_deadline, now);
	if (s->nmi_pending)
		atomic_fetch_or_explicit(&l->events, LAPIC_EV_NMI, memory_order_acq_rel);
	lapic_signal(l, (int)vcpu);
}
