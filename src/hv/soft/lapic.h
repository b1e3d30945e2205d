/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software interrupt controllers, part 1: one local APIC for each vCPU (Intel SDM vol. 3 chapter 11), in xAPIC and x2APIC
 * mode. Part 2, the IOAPIC, is in ioapic.h; both live in one `struct irqchip`.
 *
 * How a vCPU sees it: the chip sets a bit in a word that the vCPU owns (irqchip_set_flag) whenever there may be something to
 * do, so the check in the vCPU's loop is one relaxed load. When the bit is set the vCPU clears it (atomic and, acquire) and then
 * calls lapic_take_events() and, if it can take interrupts now, lapic_has_irq() and lapic_ack(). When it cannot (IF clear,
 * interrupt shadow), it must ask again by itself as soon as it can; the bit is not set a second time for the same interrupt.
 * When another thread (or another vCPU) posted, `kick` is called as well, after the bit is set: it wakes a halted
 * vCPU; for a running one the bit is enough.
 *
 * Time: `now` values are CLOCK_MONOTONIC in ns. The guest's TSC runs at 1 GHz: tsc = now + offset of the vCPU
 * (lapic_set_tsc_offset). The APIC timer's bus clock is 1 GHz too, before its divider.
 *
 * Thread rules: functions marked [any] may be called from any thread; all others on the vCPU's own thread, or while no vCPU runs.
 */
#ifndef HV_SOFT_LAPIC_H
#define HV_SOFT_LAPIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "x86/state.h"

#define IRQCHIP_MAX_VCPUS 32
#define LAPIC_NO_DEADLINE UINT64_MAX
#define LAPIC_BUS_KHZ     1000000u
#define LAPIC_TSC_KHZ     1000000u

/* lapic_take_events(). INIT comes before SIPI when both are set. */
#define LAPIC_EV_NMI  0x1u
#define LAPIC_EV_INIT 0x2u
#define LAPIC_EV_SIPI 0x4u

struct irqchip;

/* [any] Told that vcpu has something to look at; its flag bit is already set. Must not block and not call the chip. */
typedef void irqchip_kick_fn(void *ctx, unsigned vcpu);
/* Told on vcpu's thread that its timer deadline changed (lapic_timer_deadline() says to what). */
typedef void irqchip_timer_fn(void *ctx, unsigned vcpu);

/* n_vcpus 1..IRQCHIP_MAX_VCPUS; APIC id = index. All LAPICs and the IOAPIC are in their reset state; NULL without memory. */
struct irqchip *irqchip_new(unsigned n_vcpus, irqchip_kick_fn *kick, void *ctx);
void irqchip_free(struct irqchip *c);
/* Before any vCPU runs: where to set `bits` for vcpu (the word outlives the chip), and an optional timer hook. */
void irqchip_set_flag(struct irqchip *c, unsigned vcpu, _Atomic uint32_t *word, uint32_t bits);
void irqchip_set_timer_hook(struct irqchip *c, irqchip_timer_fn *fn, void *ctx);

/* The xAPIC register page (HV_LAPIC_BASE, 4 KiB). len 4 on 16-byte boundaries does something; else reads give 0 and
 * writes are dropped. In x2APIC mode or globally disabled it returns false: nobody answers. */
bool lapic_mmio(struct irqchip *c, unsigned vcpu, uint64_t off, void *data, unsigned len, bool is_write, uint64_t now);

/* MSRs: IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0) and 0x800..0x8FF. Return 0, or -1 where the guest gets #GP. */
int lapic_msr_read(struct irqchip *c, unsigned vcpu, uint32_t msr, uint64_t *val, uint64_t now);
int lapic_msr_write(struct irqchip *c, unsigned vcpu, uint32_t msr, uint64_t val, uint64_t now);
static inline bool lapic_is_msr(uint32_t msr)
{
	return msr == 0x1B || msr == 0x6E0 || (msr >= 0x800 && msr <= 0x8FF);
}

/* CR8 is bits 4..7 of the task priority. Lowering it may set the flag bit. val > 15 is the caller's #GP. */
uint64_t lapic_get_cr8(struct irqchip *c, unsigned vcpu);
void lapic_set_cr8(struct irqchip *c, unsigned vcpu, uint64_t val);

/* The highest pending vector above the processor priority, or -1. Changes nothing. */
int lapic_has_irq(struct irqchip *c, unsigned vcpu);
/* Accepts that vector: IRR to ISR. Returns it, or -1 when there is none (any more). Ask again afterwards only when IF allows. */
int lapic_ack(struct irqchip *c, unsigned vcpu);

/* Takes and clears pending NMI, INIT and SIPI (LAPIC_EV_*); *sipi_vector is the start page (CS base = vector << 12). After
 * LAPIC_EV_INIT the LAPIC has already been reset; a SIPI counts only for a vCPU that waits for one (after its INIT). */
unsigned lapic_take_events(struct irqchip *c, unsigned vcpu, uint8_t *sipi_vector);
/* [any] */
void lapic_post_nmi(struct irqchip *c, unsigned vcpu);
void lapic_post_irq(struct irqchip *c, unsigned vcpu, uint8_t vector, bool level);

/* [any] The time at which the timer is due (CLOCK_MONOTONIC ns), or LAPIC_NO_DEADLINE. One relaxed load. */
uint64_t lapic_timer_deadline(struct irqchip *c, unsigned vcpu);
/* [any] Fires the timer when it is due: posts its interrupt once (flag bit, no kick: a caller on another thread kicks the vCPU
 * itself) and, when periodic, arms the next. True when it fired. */
bool lapic_poll_timer(struct irqchip *c, unsigned vcpu, uint64_t now);

/* tsc = CLOCK_MONOTONIC ns + offset, for the TSC-deadline timer; a pending deadline keeps its TSC value. */
void lapic_set_tsc_offset(struct irqchip *c, unsigned vcpu, int64_t offset);

/* To and from lapic[], cr8, apic_base, tsc_deadline and nmi_pending of *s. The timer's initial count is kept and its current
 * count continues from `now`. Any content is safe to load. Pending INIT and SIPI are part of mp_state, which the caller
 * saves after having taken the events. */
void lapic_save(struct irqchip *c, unsigned vcpu, struct x86_state *s, uint64_t now);
void lapic_load(struct irqchip *c, unsigned vcpu, const struct x86_state *s, uint64_t now);
/* RESET (init = false) or INIT (the APIC id and base stay). */
void lapic_reset(struct irqchip *c, unsigned vcpu, bool init);

#endif
