/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floating-point state between guest and host (SDM vol. 1 chapters 8 and 10).
 *
 * While guest code runs (between x86_fp_enter and x86_fp_leave) the host's MXCSR is the guest's with every exception masked, so its sticky
 * flags are the guest's as they gather; the host's x87 has its default control word, an empty stack, and exception flags that are a
 * subset of the guest's. Outside, the host's are the host's own and struct x86_cpu is whole.
 *
 * Thread rules: the CPU's own thread; between enter and leave nothing else on it may use floating point.
 */
#ifndef X86_FP_H
#define X86_FP_H

#include "x86/cpu.h"

#define X86_MXCSR_FLAGS 0x003fu
#define X86_MXCSR_MASKS 0x1f80u
#define X86_MXCSR_FZ    0x8000u
#define X86_MXCSR_VALID 0xffffu /* MXCSR_MASK: DAZ exists on every x86-64 */

#define X86_FSW_ES  0x0080u
#define X86_FSW_C0  0x0100u
#define X86_FSW_C1  0x0200u
#define X86_FSW_C2  0x0400u
#define X86_FSW_TOP 0x3800u
#define X86_FSW_C3  0x4000u
#define X86_FSW_B   0x8000u

static inline uint32_t x86_host_stmxcsr(void)
{
	uint32_t v;
	__asm__ volatile("stmxcsr %0" : "=m"(v));
	return v;
}
static inline void x86_host_ldmxcsr(uint32_t v)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

/* Inside guest code: c->mxcsr takes in the flags that the host gathered. */
static inline void x86_mxcsr_sync(struct x86_cpu *c)
{
	c->mxcsr |= x86_host_stmxcsr() & X86_MXCSR_FLAGS;
}
/* Inside guest code: the host's MXCSR follows a change of c->mxcsr. */
static inline void x86_mxcsr_reload(const struct x86_cpu *c)
{
	x86_host_ldmxcsr(c->mxcsr | X86_MXCSR_MASKS);
}
/* Inside guest code: the guest's x87 exception flags were cleared or replaced, so the host's must not come back. */
static inline void x86_x87_flags_changed(void)
{
	__asm__ volatile("fnclex");
}

/* What x86_cpu.fp_trap must be for the present CR0, CR4 and MXCSR. */
uint8_t x86_fp_trap(const struct x86_cpu *c);

/* Sets ES and B in c->fsw as the flags and masks have them. */
static inline void x86_x87_update_es(struct x86_cpu *c)
{
	if (c->fsw & ~c->fcw & 0x3f)
		c->fsw |= X86_FSW_ES | X86_FSW_B;
	else
		c->fsw &= (uint16_t)~(X86_FSW_ES | X86_FSW_B);
}

/* c's x87, MXCSR and XMM state as FXSAVE64 writes it, and back. The reserved areas are zero. Do not touch the host's registers: the
 * caller syncs before and reloads after when guest code is running. */
void x86_fx_get(const struct x86_cpu *c, struct x86_fxsave *f);
void x86_fx_set(struct x86_cpu *c, const struct x86_fxsave *f); /* f->mxcsr: bits outside X86_MXCSR_VALID are dropped */
/* FNINIT. */
void x86_x87_init(struct x86_cpu *c);

#endif
