/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Switching the host's floating-point control registers to the guest's and back, and the FXSAVE image.
 *
 * Theory of operation: see fp.h. Exceptions stay masked on the host at all times; an unmasked one of the guest makes fp_trap
 * non-zero (SSE) or the x87 handlers take their exact path, and the exception is made from the flags.
 */
#include "x86/fp.h"

#include <string.h>

#define HOST_MXCSR 0x1f80u

void x86_fp_enter(struct x86_cpu *c)
{
	x86_mxcsr_reload(c);
	__asm__ volatile("fninit");
}

void x86_fp_leave(struct x86_cpu *c)
{
	x86_mxcsr_sync(c);
	x86_host_ldmxcsr(HOST_MXCSR);
}

uint8_t x86_fp_trap(const struct x86_cpu *c)
{
	return (c->cr0 & (X86_CR0_TS | X86_CR0_EM) ? 1 : 0) | (c->cr4 & X86_CR4_OSFXSR ? 0 : 2) |
	       ((c->mxcsr & X86_MXCSR_MASKS) != X86_MXCSR_MASKS ? 4 : 0);
}

void x86_x87_init(struct x86_cpu *c)
{
	c->fcw = 0x37f;
	c->fsw = 0;
	c->ftw = 0;
	c->fop = 0;
	c->fip = 0;
	c->fdp = 0;
}

void x86_fx_get(const struct x86_cpu *c, struct x86_fxsave *f)
{
	memset(f, 0, sizeof(*f));
	f->fcw = c->fcw;
	f->fsw = c->fsw;
	f->ftw = c->ftw;
	f->fop = c->fop;
	f->fip = c->fip;
	f->fdp = c->fdp;
	f->mxcsr = c->mxcsr;
	f->mxcsr_mask = X86_MXCSR_VALID;
	const unsigned top = c->fsw >> 11 & 7;
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[i], c->st[(top + i) & 7], 10);
	memcpy(f->xmm, c->xmm, sizeof(f->xmm));
}

void x86_fx_set(struct x86_cpu *c, const struct x86_fxsave *f)
{
	c->fcw = (uint16_t)((f->fcw & 0x1f3f) | 0x40);
	c->fsw = f->fsw;
	c->ftw = f->ftw;
	c->fop = f->fop & 0x7ff;
	c->fip = f->fip;
	c->fdp = f->fdp;
	c->mxcsr = f->mxcsr & X86_MXCSR_VALID;
	const unsigned top = c->fsw >> 11 & 7;
	memset(c->st, 0, sizeof(c->st));
	for (unsigned i = 0; i < 8; i++)
		memcpy(c->st[(top + i) & 7], f->st[i], 10);
	memcpy(c->xmm, f->xmm, sizeof(f->xmm));
	x86_x87_update_es(c);
}
