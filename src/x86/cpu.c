/* SPDX-License-Identifier: Apache-2.0 */
/* A CPU's life: reset, loading and saving the exchange form of its state, flags, modes. */
#include "x86/cpu.h"

#include <string.h>

#include "base/util.h"
#include "x86/fp.h"
#include "x86/insn.h"
#include "x86/paging.h"

uint64_t x86_get_rflags(const struct x86_cpu *c)
{
	return c->rflags | (c->fl >> 8 & 0xd5) | (uint64_t)(c->fl & 1) << 11 | (uint64_t)c->df << 10 | 2;
}

void x86_set_rflags(struct x86_cpu *c, uint64_t v)
{
	c->fl = (uint16_t)(((v & 0xd5) | 2) << 8 | (v >> 11 & 1));
	c->df = v >> 10 & 1;
	const uint64_t old = c->rflags;
	c->rflags = v & (X86_FL_TF | X86_FL_IF | X86_FL_IOPL | X86_FL_NT | X86_FL_RF | X86_FL_AC | X86_FL_ID);
	if ((old ^ c->rflags) & X86_FL_AC)
		x86_update_mode(c);
}

/* Never written: the fast tier only reads entries through x86_cpu.tlb. */
static const struct x86_tlb_entry empty_tlb[X86_TLB_SIZE] = {
	[0 ... X86_TLB_SIZE - 1] = {X86_TLB_NONE, X86_TLB_NONE, X86_TLB_NONE, 0},
};

static unsigned page_bit(uint64_t la)
{
	uint64_t page = la >> MEM_PAGE_SHIFT;
	return (unsigned)(page ^ page >> 13) & (X86_JC_PAGE_WORDS * 64 - 1);
}

void x86_note_jump(struct x86_cpu *c, uint64_t rip, uint32_t block)
{
	const unsigned bit = page_bit(rip);
	c->jc[X86_JC_INDEX(rip)] = (struct x86_jump){.rip = rip, .gen = c->jc_gen, .block = block};
	c->jc_pages[c->cpl == 3][bit / 64] |= BIT(bit % 64);
}

void x86_forget_page_jumps(struct x86_cpu *c, uint64_t la)
{
	const unsigned bit = page_bit(la);
	x86_forget_jumps(c, c->jc_pages[1][bit / 64] >> (bit % 64) & 1, c->jc_pages[0][bit / 64] >> (bit % 64) & 1);
}

void x86_forget_jumps(struct x86_cpu *c, bool user, bool kernel)
{
	if (kernel)
		memset(c->jc_pages[0], 0, sizeof(c->jc_pages[0]));
	if (user)
		memset(c->jc_pages[1], 0, sizeof(c->jc_pages[1]));
	if (kernel)
		c->jc_gens[0] += 8;
	if (user)
		c->jc_gens[1] += 8;
	/* After a turn of the counter old entries would hold again, so there must be none. */
	if (!c->jc_gens[0] || !c->jc_gens[1]) {
		for (unsigned i = 0; i < X86_JC_SIZE; i++)
			c->jc[i].gen = ~0u;
		c->jc_gens[0] = c->jc_gens[1] = 8;
	}
	c->jc_gen = c->jc_gens[c->cpl == 3] | (c->jc_gen & 7);
}

void x86_update_mode(struct x86_cpu *c)
{
	const bool is64 = (c->efer & X86_EFER_LMA) && (c->seg[X86_CS].attr & X86_ATTR_L);
	c->mode = is64 ? X86_MODE_64 : (c->seg[X86_CS].attr & X86_ATTR_DB) ? X86_MODE_32 : X86_MODE_16;
	for (unsigned s = 0; s < X86_N_SEGS; s++)
		c->segbase[s] = is64 && s != X86_FS && s != X86_GS ? 0 : c->seg[s].base;
	if (c->cpl == 3)
		c->tlb_kind = X86_TLB_USER;
	else
		c->tlb_kind = (c->cr4 & X86_CR4_SMAP) && !(c->rflags & X86_FL_AC) ? X86_TLB_KERNEL : X86_TLB_KERNEL_AC;
	/* With alignment checks in force the fast tier finds nothing, so that every access goes through the slow one, which checks. */
	c->check_align = c->cpl == 3 && (c->cr0 & X86_CR0_AM) && (c->rflags & X86_FL_AC);
	c->tlb = c->check_align ? (struct x86_tlb_entry *)(uintptr_t)empty_tlb : c->tlbs[c->tlb_kind].e;
	/* Jump targets are per privilege and mode: the low bits of the generation tell them apart. */
	c->jc_gen = c->jc_gens[c->cpl == 3] | (c->cpl == 3 ? 4u : 0) | c->mode;
	c->fp_trap = x86_fp_trap(c);
}

bool x86_raise(struct x86_cpu *c, unsigned vector, uint32_t error)
{
	c->exc = (struct x86_exception){.vector = (uint8_t)vector, .has_error = true, .error = error};
	return false;
}

bool x86_raise_noerr(struct x86_cpu *c, unsigned vector)
{
	c->exc = (struct x86_exception){.vector = (uint8_t)vector};
	return false;
}

void x86_cpu_init(struct x86_cpu *c, const struct x86_env *env, void *owner, unsigned apic_id)
{
	/* Everything but `pending`, which other threads may be writing to. */
	const size_t from = offsetof(struct x86_cpu, pending), to = from + sizeof(c->pending);
	memset(c, 0, from);
	memset((char *)c + to, 0, sizeof(*c) - to);
	c->env = env;
	c->owner = owner;
	c->apic_id = apic_id;
	c->rip = 0xfff0;
	c->cr0 = 0x60000010;
	for (unsigned s = 0; s < X86_N_SEGS; s++)
		c->seg[s] = (struct x86_segment){.limit = 0xffff, .attr = 0x93};
	c->seg[X86_CS] = (struct x86_segment){.selector = 0xf000, .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b};
	c->gdtr.limit = c->idtr.limit = 0xffff;
	c->ldtr = (struct x86_segment){.limit = 0xffff, .attr = 0x82};
	c->tr = (struct x86_segment){.limit = 0xffff, .attr = 0x8b};
	c->dr[6] = 0xffff0ff0;
	c->dr[7] = 0x400;
	c->pat = 0x0007040600070406ull;
	c->misc_enable = 1;
	c->mxcsr = 0x1f80;
	x86_x87_init(c);
	x86_set_rflags(c, 2);
	c->jc_gens[0] = c->jc_gens[1] = 8;
	for (unsigned k = 0; k < X86_N_TLBS; k++)
		memset(c->tlbs[k].e, 0xff, sizeof(c->tlbs[k].e));
	for (unsigned i = 0; i < X86_JC_SIZE; i++)
		c->jc[i].gen = ~0u;
	x86_update_mode(c);
}

void x86_cpu_load(struct x86_cpu *c, const struct x86_state *s)
{
	memcpy(c->r, s->gpr, sizeof(s->gpr));
	c->rip = s->rip;
	memcpy(c->seg, s->seg, sizeof(c->seg));
	c->tr = s->tr;
	c->ldtr = s->ldtr;
	c->gdtr = s->gdtr;
	c->idtr = s->idtr;
	c->cr0 = s->cr0;
	c->cr2 = s->cr2;
	c->cr3 = s->cr3;
	c->cr4 = s->cr4;
	c->efer = s->efer;
	memcpy(c->dr, s->dr, sizeof(c->dr));
	c->star = s->star;
	c->lstar = s->lstar;
	c->cstar = s->cstar;
	c->sfmask = s->sfmask;
	c->kernel_gs_base = s->kernel_gs_base;
	c->sysenter_cs = s->sysenter_cs;
	c->sysenter_esp = s->sysenter_esp;
	c->sysenter_eip = s->sysenter_eip;
	c->pat = s->pat;
	c->mtrr_def_type = s->mtrr_def_type;
	memcpy(c->mtrr, s->mtrr, sizeof(s->mtrr));
	c->misc_enable = s->misc_enable;
	c->tsc_aux = s->tsc_aux;
	c->irq_shadow = !!s->irq_shadow;
	c->nmi_masked = s->nmi_masked;
	x86_fx_set(c, &s->fx);
	/* CPL is SS's DPL in protected mode (SDM vol. 3 section 5.5). */
	c->cpl = (c->cr0 & X86_CR0_PE) ? (s->seg[X86_SS].attr >> X86_ATTR_DPL_SHIFT) & 3 : 0;
	x86_set_rflags(c, s->rflags);
	x86_update_mode(c);
	x86_tlb_flush(c, true);
}

void x86_cpu_save(struct x86_cpu *c, struct x86_state *s)
{
	memcpy(s->gpr, c->r, sizeof(s->gpr));
	s->rip = c->rip;
	s->rflags = x86_get_rflags(c);
	memcpy(s->seg, c->seg, sizeof(c->seg));
	s->tr = c->tr;
	s->ldtr = c->ldtr;
	s->gdtr = c->gdtr;
	s->idtr = c->idtr;
	s->cr0 = c->cr0;
	s->cr2 = c->cr2;
	s->cr3 = c->cr3;
	s->cr4 = c->cr4;
	s->efer = c->efer;
	memcpy(s->dr, c->dr, sizeof(c->dr));
	s->star = c->star;
	s->lstar = c->lstar;
	s->cstar = c->cstar;
	s->sfmask = c->sfmask;
	s->kernel_gs_base = c->kernel_gs_base;
	s->sysenter_cs = c->sysenter_cs;
	s->sysenter_esp = c->sysenter_esp;
	s->sysenter_eip = c->sysenter_eip;
	s->pat = c->pat;
	s->mtrr_def_type = c->mtrr_def_type;
	memcpy(s->mtrr, c->mtrr, sizeof(s->mtrr));
	s->misc_enable = c->misc_enable;
	s->tsc_aux = c->tsc_aux;
	s->irq_shadow = c->irq_shadow;
	s->nmi_masked = c->nmi_masked;
	x86_fx_get(c, &s->fx);
}
