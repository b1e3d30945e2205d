/* SPDX-License-Identifier: Apache-2.0 */
/* System instructions: thin handlers over system.c. Those that change what later code means (mode, privilege, interrupt flag) leave the
 * block, so that the run loop looks at everything again. */
#include "x86/op.h"

#include "x86/system.h"

#define IOPL(c) (((c)->rflags & X86_FL_IOPL) >> 12)

HANDLER(cli)
{
	if (unlikely(c->cpl > IOPL(c))) {
#if X86_TIER_FAST
		return x86_go_slow(c, u, table);
#else
		RAISE(X86_GP, 0);
#endif
	}
	c->rflags &= ~(uint64_t)X86_FL_IF;
	NEXT();
}

/* Within a block STI only sets the flag: what arrives later leaves at the next block boundary. Where something waits already, the slow form
 * leaves after the one instruction of interrupt shadow. */
HANDLER(sti)
{
#if X86_TIER_FAST
	if (unlikely(c->cpl > IOPL(c) || c->irq_wait))
		return x86_go_slow(c, u, table);
	c->rflags |= X86_FL_IF;
	NEXT();
#else
	if (c->cpl > IOPL(c))
		RAISE(X86_GP, 0);
	if (!(c->rflags & X86_FL_IF)) {
		c->rflags |= X86_FL_IF;
		c->irq_shadow = 1;
	}
	x86_uncount(c, u + 1);
	c->rip = X86_RIP_NEXT(c, u) - c->segbase[X86_CS];
	LEAVE(X86_LEAVE_LOOKUP);
#endif
}

HANDLER(swapgs)
{
	if (unlikely(c->cpl)) {
#if X86_TIER_FAST
		return x86_go_slow(c, u, table);
#else
		RAISE(X86_GP, 0);
#endif
	}
	uint64_t b = c->seg[X86_GS].base;
	c->seg[X86_GS].base = c->segbase[X86_GS] = c->kernel_gs_base;
	c->kernel_gs_base = b;
	NEXT();
}

HANDLER(rdtsc)
{
	if (unlikely((c->cr4 & X86_CR4_TSD) && c->cpl)) {
#if X86_TIER_FAST
		return x86_go_slow(c, u, table);
#else
		RAISE(X86_GP, 0);
#endif
	}
	uint64_t t = c->env->rdtsc(c);
	W_l(X86_RAX * 8, t);
	W_l(X86_RDX * 8, t >> 32);
	NEXT();
}

/* idx: operand size */
HANDLER(pushf)
{
	uint64_t f = x86_get_rflags(c) & ~(uint64_t)(X86_FL_RF | X86_FL_VM);
#if !X86_TIER_FAST
	if (c->mode != X86_MODE_64) {
		uint64_t mask = c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
		uint64_t sp = (c->r[X86_RSP] - u->idx) & mask;
		if (!x86_write(c, (uint32_t)(c->segbase[X86_SS] + sp), u->idx, &f))
			return x86_fault(c, u);
		c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | sp;
		NEXT();
	}
#else
	if (unlikely(c->mode != X86_MODE_64))
		return x86_go_slow(c, u, table);
#endif
	if (u->idx == 2) {
		STORE(uint16_t, c->r[X86_RSP] - 2, f);
		c->r[X86_RSP] -= 2;
	} else {
		STORE(uint64_t, c->r[X86_RSP] - 8, f);
		c->r[X86_RSP] -= 8;
	}
	NEXT();
}

/* CLAC and STAC choose which supervisor TLB is in use. */
static inline void set_ac(struct x86_cpu *c, bool on)
{
	c->rflags = on ? c->rflags | X86_FL_AC : c->rflags & ~(uint64_t)X86_FL_AC;
	if (c->cr4 & X86_CR4_SMAP) {
		c->tlb_kind = on ? X86_TLB_KERNEL_AC : X86_TLB_KERNEL;
		c->tlb = c->tlbs[c->tlb_kind].e;
	}
}
HANDLER(clac)
{
	if (unlikely(c->cpl)) {
#if X86_TIER_FAST
		return x86_go_slow(c, u, table);
#else
		RAISE_NOERR(X86_UD);
#endif
	}
	set_ac(c, false);
	NEXT();
}
HANDLER(stac)
{
	if (unlikely(c->cpl)) {
#if X86_TIER_FAST
		return x86_go_slow(c, u, table);
#else
		RAISE_NOERR(X86_UD);
#endif
	}
	set_ac(c, true);
	NEXT();
}

/* MOV r, Sreg; src: segment; idx: operand size */
HANDLER(mov_rseg)
{
	uint16_t v = c->seg[u->src].selector;
	if (u->idx == 2)
		W_w(u->dst, v);
	else
		W_q(u->dst, v);
	NEXT();
}

#if !X86_TIER_FAST
#define NEED_CPL0()                                                                                                \
	do {                                                                                                       \
		if (c->cpl)                                                                                        \
			RAISE(X86_GP, 0);                                                                          \
	} while (0)
/* Ends the block behind a completed instruction. */
#define DONE_LEAVE()                                                                                               \
	do {                                                                                                       \
		x86_uncount(c, u + 1);                                                                             \
		c->rip = X86_RIP_NEXT(c, u) - c->segbase[X86_CS];                                                  \
		LEAVE(X86_LEAVE_LOOKUP);                                                                           \
	} while (0)
#define TRY(expr)                                                                                                  \
	do {                                                                                                       \
		if (!(expr))                                                                                       \
			return x86_fault(c, u);                                                                    \
	} while (0)

HANDLER(ud)
{
	RAISE_NOERR(X86_UD);
}
HANDLER(gp)
{
	RAISE(X86_GP, 0);
}
HANDLER(pause)
{
	if (c->env->relax)
		c->env->relax(c);
	NEXT();
}
HANDLER(mfence)
{
	__asm__ volatile("mfence" ::: "memory");
	NEXT();
}
HANDLER(invd) /* INVD, WBINVD: there is no cache to write back */
{
	NEED_CPL0();
	NEXT();
}
HANDLER(rdmsr)
{
	uint64_t v;
	NEED_CPL0();
	TRY(x86_read_msr(c, (uint32_t)c->r[X86_RCX], &v));
	W_l(X86_RAX * 8, v);
	W_l(X86_RDX * 8, v >> 32);
	NEXT();
}
HANDLER(wrmsr)
{
	NEED_CPL0();
	TRY(x86_write_msr(c, (uint32_t)c->r[X86_RCX], (uint32_t)c->r[X86_RAX] | c->r[X86_RDX] << 32));
	DONE_LEAVE();
}
HANDLER(rdpmc)
{
	RAISE(X86_GP, 0);
}
HANDLER(rdtscp)
{
	if ((c->cr4 & X86_CR4_TSD) && c->cpl)
		RAISE(X86_GP, 0);
	uint64_t t = c->env->rdtsc(c);
	W_l(X86_RAX * 8, t);
	W_l(X86_RDX * 8, t >> 32);
	W_l(X86_RCX * 8, c->tsc_aux);
	NEXT();
}
HANDLER(cpuid)
{
	uint32_t out[4];
	x86_cpuid(c->env->model, c->apic_id, (uint32_t)c->r[X86_RAX], (uint32_t)c->r[X86_RCX], out);
	W_l(X86_RAX * 8, out[0]);
	W_l(X86_RBX * 8, out[1]);
	W_l(X86_RCX * 8, out[2]);
	W_l(X86_RDX * 8, out[3]);
	NEXT();
}
HANDLER(hlt)
{
	NEED_CPL0();
	x86_uncount(c, u + 1);
	c->rip = X86_RIP_NEXT(c, u) - c->segbase[X86_CS];
	LEAVE(X86_LEAVE_HALT);
}
/* KVM hypercalls: none is offered, which the guest learns from -KVM_ENOSYS. */
HANDLER(vmcall)
{
	if (c->cpl)
		RAISE_NOERR(X86_UD);
	c->r[X86_RAX] = (uint64_t)-1000;
	NEXT();
}

/* idx: operand size */
HANDLER(popf)
{
	uint64_t f = 0;
	const uint64_t mask = c->mode == X86_MODE_64 ? ~0ull : c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
	const uint64_t sp = c->r[X86_RSP] & mask;
	TRY(x86_read(c, c->segbase[X86_SS] + sp, u->idx, &f));
	uint64_t change = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT;
	if (u->idx > 2)
		change |= X86_FL_AC | X86_FL_ID;
	if (c->cpl <= IOPL(c))
		change |= X86_FL_IF;
	if (!c->cpl)
		change |= X86_FL_IOPL;
	x86_set_rflags(c, (x86_get_rflags(c) & ~(change | X86_FL_RF)) | (f & change));
	c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | ((sp + u->idx) & mask);
	DONE_LEAVE();
}
/* idx: operand size */
HANDLER(iret)
{
	TRY(x86_iret(c, u->idx));
	LEAVE(X86_LEAVE_LOOKUP);
}
/* imm: vector; idx 1: INT1, for which the gate's privilege level does not matter (SDM vol. 2 INT n) */
HANDLER(int_n)
{
	c->exc = (struct x86_exception){.vector = (uint8_t)u->imm, .soft = !u->idx, .error = X86_IP_LEN(u)};
	c->rip = X86_RIP_NEXT(c, u) - c->segbase[X86_CS];
	LEAVE(X86_LEAVE_EXCEPTION);
}
HANDLER(syscall)
{
	if (!(c->efer & X86_EFER_SCE) || !(c->efer & X86_EFER_LMA))
		RAISE_NOERR(X86_UD);
	const uint64_t flags = x86_get_rflags(c) & ~(uint64_t)X86_FL_RF;
	c->r[X86_RCX] = X86_RIP_NEXT(c, u) - c->segbase[X86_CS];
	c->r[X86_R11] = flags;
	c->rip = c->mode == X86_MODE_64 ? c->lstar : c->cstar;
	const uint16_t cs = (uint16_t)(c->star >> 32 & 0xfffc);
	x86_flat_cs(c, cs, 0, true);
	x86_flat_ss(c, (uint16_t)(cs + 8), 0);
	x86_set_rflags(c, flags & ~(c->sfmask | X86_FL_RF));
	x86_update_mode(c);
	LEAVE(X86_LEAVE_LOOKUP);
}
/* idx: operand size */
HANDLER(sysret)
{
	if (!(c->efer & X86_EFER_SCE) || c->mode != X86_MODE_64)
		RAISE_NOERR(X86_UD);
	NEED_CPL0();
	if (u->idx == 8 && !x86_canonical(c->r[X86_RCX]))
		RAISE(X86_GP, 0);
	const uint16_t base = (uint16_t)(c->star >> 48);
	c->rip = u->idx == 8 ? c->r[X86_RCX] : (uint32_t)c->r[X86_RCX];
	x86_flat_cs(c, (uint16_t)((base + (u->idx == 8 ? 16 : 0)) | 3), 3, u->idx == 8);
	x86_flat_ss(c, (uint16_t)((base + 8) | 3), 3);
	x86_set_rflags(c, (c->r[X86_R11] & 0x3c7fd7u) | 2);
	x86_update_mode(c);
	LEAVE(X86_LEAVE_LOOKUP);
}
HANDLER(sysenter)
{
	if (!(c->cr0 & X86_CR0_PE) || !(c->sysenter_cs & 0xfffc))
		RAISE(X86_GP, 0);
	const bool lma = c->efer & X86_EFER_LMA;
	x86_set_rflags(c, x86_get_rflags(c) & ~(uint64_t)(X86_FL_IF | X86_FL_VM | X86_FL_RF));
	c->r[X86_RSP] = lma ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
	c->rip = lma ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
	x86_flat_cs(c, (uint16_t)(c->sysenter_cs & 0xfffc), 0, lma);
	x86_flat_ss(c, (uint16_t)((c->sysenter_cs & 0xfffc) + 8), 0);
	x86_update_mode(c);
	LEAVE(X86_LEAVE_LOOKUP);
}
/* idx: operand size */
HANDLER(sysexit)
{
	if (!(c->cr0 & X86_CR0_PE) || !(c->sysenter_cs & 0xfffc))
		RAISE(X86_GP, 0);
	NEED_CPL0();
	const bool is64 = u->idx == 8;
	if (is64 && (!x86_canonical(c->r[X86_RCX]) || !x86_canonical(c->r[X86_RDX])))
		RAISE(X86_GP, 0);
	const uint16_t cs = (uint16_t)((c->sysenter_cs & 0xfffc) + (is64 ? 32 : 16));
	c->rip = is64 ? c->r[X86_RDX] : (uint32_t)c->r[X86_RDX];
	c->r[X86_RSP] = is64 ? c->r[X86_RCX] : (uint32_t)c->r[X86_RCX];
	x86_flat_cs(c, (uint16_t)(cs | 3), 3, is64);
	x86_flat_ss(c, (uint16_t)((cs + 8) | 3), 3);
	x86_update_mode(c);
	LEAVE(X86_LEAVE_LOOKUP);
}

/* MOV Sreg, r16; dst: segment; src: register slot */
HANDLER(mov_segr)
{
	TRY(x86_load_segment(c, u->dst, REG(uint16_t, u->src)));
	if (u->dst == X86_SS)
		c->irq_shadow = 1;
	DONE_LEAVE();
}
static uint64_t stack_bits(const struct x86_cpu *c)
{
	return c->mode == X86_MODE_64 ? ~0ull : c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
}
/* src, dst: segment; idx: operand size */
HANDLER(push_seg)
{
	const uint64_t mask = stack_bits(c), sp = (c->r[X86_RSP] - u->idx) & mask;
	uint64_t v = c->seg[u->src].selector;
	/* A 32-bit push writes the selector alone and leaves the other half of the slot as it is (SDM vol. 2 PUSH). */
	TRY(x86_write(c, c->segbase[X86_SS] + sp, u->idx == 4 ? 2 : u->idx, &v));
	c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | sp;
	NEXT();
}
HANDLER(pop_seg)
{
	const uint64_t mask = stack_bits(c), sp = c->r[X86_RSP] & mask;
	uint64_t v = 0;
	TRY(x86_read(c, c->segbase[X86_SS] + sp, u->idx, &v));
	TRY(x86_load_segment(c, u->dst, (uint16_t)v));
	c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | ((sp + u->idx) & mask);
	if (u->dst == X86_SS)
		c->irq_shadow = 1;
	DONE_LEAVE();
}
/* LDS, LES, LSS, LFS, LGS: dst register slot, src segment, idx operand size */
HANDLER(lds)
{
	uint64_t v = 0;
	uint16_t selector;
	TRY(x86_read(c, EA0(), u->idx, &v));
	TRY(x86_read(c, EA0() + u->idx, 2, &selector));
	TRY(x86_load_segment(c, u->src, selector));
	if (u->idx == 2)
		W_w(u->dst, v);
	else if (u->idx == 4)
		W_l(u->dst, v);
	else
		W_q(u->dst, v);
	DONE_LEAVE();
}

/* idx: operand size; 64-bit mode always moves 8 bytes of base */
static bool load_table(struct x86_cpu *c, uint64_t ea, unsigned size, struct x86_dtable *t)
{
	uint16_t limit;
	uint64_t base = 0;
	if (!x86_read(c, ea, 2, &limit) || !x86_read(c, ea + 2, c->mode == X86_MODE_64 ? 8 : 4, &base))
		return false;
	if (c->mode == X86_MODE_64 && !x86_canonical(base))
		return x86_raise(c, X86_GP, 0);
	if (c->mode != X86_MODE_64 && size == 2)
		base &= 0xffffff;
	*t = (struct x86_dtable){.base = base, .limit = limit};
	return true;
}
static bool store_table(struct x86_cpu *c, uint64_t ea, const struct x86_dtable *t)
{
	uint8_t image[10];
	store_le16(image, t->limit);
	store_le64(image + 2, t->base);
	return x86_write_bytes(c, ea, image, c->mode == X86_MODE_64 ? 10 : 6);
}
HANDLER(lgdt)
{
	NEED_CPL0();
	TRY(load_table(c, EA0(), u->idx, &c->gdtr));
	NEXT();
}
HANDLER(lidt)
{
	NEED_CPL0();
	TRY(load_table(c, EA0(), u->idx, &c->idtr));
	NEXT();
}
HANDLER(sgdt)
{
	TRY(store_table(c, EA0(), &c->gdtr));
	NEXT();
}
HANDLER(sidt)
{
	TRY(store_table(c, EA0(), &c->idtr));
	NEXT();
}
/* src: register slot */
HANDLER(lldt)
{
	if (!(c->cr0 & X86_CR0_PE))
		RAISE_NOERR(X86_UD);
	NEED_CPL0();
	TRY(x86_lldt(c, REG(uint16_t, u->src)));
	NEXT();
}
HANDLER(ltr)
{
	if (!(c->cr0 & X86_CR0_PE))
		RAISE_NOERR(X86_UD);
	NEED_CPL0();
	TRY(x86_ltr(c, REG(uint16_t, u->src)));
	NEXT();
}
static void store_sized(struct x86_cpu *c, unsigned dst, unsigned size, uint64_t v)
{
	if (size == 2)
		W_w(dst, v);
	else if (size == 4)
		W_l(dst, v);
	else
		W_q(dst, v);
}
/* dst: register slot; idx: operand size */
HANDLER(sldt)
{
	if (!(c->cr0 & X86_CR0_PE))
		RAISE_NOERR(X86_UD);
	store_sized(c, u->dst, u->idx, c->ldtr.selector);
	NEXT();
}
HANDLER(str)
{
	if (!(c->cr0 & X86_CR0_PE))
		RAISE_NOERR(X86_UD);
	store_sized(c, u->dst, u->idx, c->tr.selector);
	NEXT();
}
HANDLER(smsw)
{
	store_sized(c, u->dst, u->idx, c->cr0);
	NEXT();
}
HANDLER(lmsw)
{
	NEED_CPL0();
	/* LMSW sets PE but never clears it. */
	uint64_t v = (c->cr0 & ~0xeull) | (REG(uint16_t, u->src) & 0xf);
	TRY(x86_write_cr(c, 0, v));
	DONE_LEAVE();
}
HANDLER(clts)
{
	NEED_CPL0();
	c->cr0 &= ~(uint64_t)X86_CR0_TS;
	x86_update_mode(c);
	NEXT();
}
HANDLER(invlpg)
{
	NEED_CPL0();
	x86_tlb_flush_page(c, EA0());
	DONE_LEAVE();
}
/* MOV CRn, r: dst n, src register slot; MOV r, CRn: dst slot, src n */
HANDLER(mov_crr)
{
	NEED_CPL0();
	uint64_t v = c->mode == X86_MODE_64 ? REG(uint64_t, u->src) : REG(uint32_t, u->src);
	TRY(x86_write_cr(c, u->dst, v));
	if (c->leave == X86_LEAVE_ERROR)
		return NULL;
	DONE_LEAVE();
}
HANDLER(mov_rcr)
{
	uint64_t v;
	NEED_CPL0();
	TRY(x86_read_cr(c, u->src, &v));
	if (c->mode == X86_MODE_64)
		W_q(u->dst, v);
	else
		W_l(u->dst, v);
	NEXT();
}
/* Debug registers are kept but do not break: DR7's breakpoints are not implemented. */
static unsigned dr_number(const struct x86_cpu *c, unsigned n)
{
	return n == 4 || n == 5 ? n + 2 : n;
}
HANDLER(mov_drr)
{
	unsigned n = dr_number(c, u->dst);
	if (n > 7)
		RAISE_NOERR(X86_UD);
	NEED_CPL0();
	uint64_t v = REG(uint64_t, u->src);
	if (n >= 6 && v >> 32)
		RAISE(X86_GP, 0);
	c->dr[n] = n == 6 ? (v & 0xe00fu) | 0xffff0ff0u : n == 7 ? (v & 0xffff2fffu) | 0x400u : v;
	NEXT();
}
HANDLER(mov_rdr)
{
	unsigned n = dr_number(c, u->src);
	if (n > 7)
		RAISE_NOERR(X86_UD);
	NEED_CPL0();
	if (c->mode == X86_MODE_64)
		W_q(u->dst, c->dr[n]);
	else
		W_l(u->dst, c->dr[n]);
	NEXT();
}
/* idx: size; src 0: port in imm, 1: port in DX */
HANDLER(in)
{
	TRY(x86_io_allowed(c));
	uint64_t v = ~0ull;
	uint16_t port = u->src ? (uint16_t)c->r[X86_RDX] : (uint8_t)u->imm;
	if (!c->env->pio(c, port, &v, u->idx, false))
		v = ~0ull;
	if (u->idx == 1)
		W_b(X86_RAX * 8, v);
	else if (u->idx == 2)
		W_w(X86_RAX * 8, v);
	else
		W_l(X86_RAX * 8, v);
	NEXT();
}
/* A write may end the machine, so the run loop looks at `pending` behind it. */
HANDLER(out)
{
	TRY(x86_io_allowed(c));
	uint64_t v = c->r[X86_RAX];
	uint16_t port = u->src ? (uint16_t)c->r[X86_RDX] : (uint8_t)u->imm;
	c->env->pio(c, port, &v, u->idx, true);
	DONE_LEAVE();
}

/* Far transfers; imm: selector, disp: offset (jmp_ptr, call_ptr); idx: operand size */
static bool far_call(struct x86_cpu *c, uint16_t selector, uint64_t target, uint64_t next, unsigned size)
{
	const uint64_t mask = stack_bits(c), sp = c->r[X86_RSP], base = c->segbase[X86_SS];
	uint64_t cs = c->seg[X86_CS].selector;
	if (!x86_probe_write(c, base + ((sp - 2 * size) & mask), size) || !x86_probe_write(c, base + ((sp - size) & mask), size))
		return false;
	const struct x86_segment old = c->seg[X86_CS];
	if (!x86_load_cs_far(c, selector, target))
		return false;
	if (!x86_write(c, base + ((sp - size) & mask), size, &cs) || !x86_write(c, base + ((sp - 2 * size) & mask), size, &next)) {
		c->seg[X86_CS] = old;
		x86_update_mode(c);
		return false;
	}
	c->r[X86_RSP] = (sp & ~mask) | ((sp - 2 * size) & mask);
	return true;
}
HANDLER(jmp_ptr)
{
	TRY(x86_load_cs_far(c, (uint16_t)u->imm, (uint32_t)u->disp));
	LEAVE(X86_LEAVE_LOOKUP);
}
HANDLER(call_ptr)
{
	TRY(far_call(c, (uint16_t)u->imm, (uint32_t)u->disp, X86_RIP_NEXT(c, u) - c->segbase[X86_CS], u->idx));
	LEAVE(X86_LEAVE_LOOKUP);
}
HANDLER(jmp_fm)
{
	uint64_t target = 0;
	uint16_t selector;
	TRY(x86_read(c, EA0(), u->idx, &target) && x86_read(c, EA0() + u->idx, 2, &selector));
	TRY(x86_load_cs_far(c, selector, target));
	LEAVE(X86_LEAVE_LOOKUP);
}
HANDLER(call_fm)
{
	uint64_t target = 0;
	uint16_t selector;
	TRY(x86_read(c, EA0(), u->idx, &target) && x86_read(c, EA0() + u->idx, 2, &selector));
	TRY(far_call(c, selector, target, X86_RIP_NEXT(c, u) - c->segbase[X86_CS], u->idx));
	LEAVE(X86_LEAVE_LOOKUP);
}
/* imm: bytes to release */
HANDLER(retf)
{
	const uint64_t mask = stack_bits(c), sp = c->r[X86_RSP];
	uint64_t target = 0, selector = 0;
	TRY(x86_read(c, c->segbase[X86_SS] + (sp & mask), u->idx, &target));
	TRY(x86_read(c, c->segbase[X86_SS] + ((sp + u->idx) & mask), u->idx, &selector));
	if ((c->cr0 & X86_CR0_PE) && (selector & 3) != c->cpl)
		RAISE(X86_GP, (uint32_t)selector & 0xfffcu); /* to an outer level: not implemented, IRET is what kernels use */
	TRY(x86_load_cs_far(c, (uint16_t)selector, target));
	c->r[X86_RSP] = (sp & ~mask) | ((sp + 2u * u->idx + (uint16_t)u->imm) & mask);
	LEAVE(X86_LEAVE_LOOKUP);
}

/* LAR, LSL, VERR, VERW: ZF says whether the selector can be seen. src: register slot; dst: register slot; idx: operand size */
static bool visible(struct x86_cpu *c, uint16_t selector, struct x86_descriptor *d, bool *fault)
{
	*fault = false;
	if (!(selector & 0xfffc))
		return false;
	c->exc.vector = X86_NOT_PLAIN;
	if (!x86_read_descriptor(c, selector, false, true, d)) {
		*fault = c->exc.vector != X86_NOT_PLAIN;
		return false;
	}
	const unsigned dpl = (d->seg.attr >> X86_ATTR_DPL_SHIFT) & 3u, type = d->seg.attr & X86_ATTR_TYPE;
	bool conforming = !d->system && (type & 0xc) == 0xc;
	return conforming || (dpl >= c->cpl && dpl >= (selector & 3u));
}
static void set_zf(struct x86_cpu *c, bool zf)
{
	c->fl = (uint16_t)((c->fl & ~X86_F_ZF) | (zf ? X86_F_ZF : 0));
}
HANDLER(lar)
{
	struct x86_descriptor d;
	bool fault, ok = visible(c, REG(uint16_t, u->src), &d, &fault);
	if (fault)
		return x86_fault(c, u);
	if (ok && d.system) {
		unsigned type = d.seg.attr & X86_ATTR_TYPE;
		ok = type == 2 || type == 9 || type == 11 || type == 12 || (!(c->efer & X86_EFER_LMA) && (type == 1 || type == 3 || type == 4 || type == 5));
	}
	if (ok) {
		uint32_t hi;
		if (!x86_read_system(c, d.la + 4, &hi, 4))
			return x86_fault(c, u);
		store_sized(c, u->dst, u->idx, hi & 0x00ffff00u);
	}
	set_zf(c, ok);
	NEXT();
}
HANDLER(lsl)
{
	struct x86_descriptor d;
	bool fault, ok = visible(c, REG(uint16_t, u->src), &d, &fault);
	if (fault)
		return x86_fault(c, u);
	if (ok && d.system) {
		unsigned type = d.seg.attr & X86_ATTR_TYPE;
		ok = type == 2 || type == 9 || type == 11 || (!(c->efer & X86_EFER_LMA) && (type == 1 || type == 3));
	}
	if (ok)
		store_sized(c, u->dst, u->idx, d.seg.limit);
	set_zf(c, ok);
	NEXT();
}
HANDLER(verr)
{
	struct x86_descriptor d;
	bool fault, ok = visible(c, REG(uint16_t, u->src), &d, &fault);
	if (fault)
		return x86_fault(c, u);
	set_zf(c, ok && !d.system && (!(d.seg.attr & 8) || (d.seg.attr & 2)));
	NEXT();
}
HANDLER(verw)
{
	struct x86_descriptor d;
	bool fault, ok = visible(c, REG(uint16_t, u->src), &d, &fault);
	if (fault)
		return x86_fault(c, u);
	set_zf(c, ok && !d.system && !(d.seg.attr & 8) && (d.seg.attr & 2));
	NEXT();
}

/* imm: size | level << 16; idx: operand size */
HANDLER(enter)
{
	const uint64_t mask = stack_bits(c), base = c->segbase[X86_SS];
	const unsigned size = u->idx, level = (unsigned)u->imm >> 16 & 31, room = (unsigned)u->imm & 0xffff;
	uint64_t sp = c->r[X86_RSP] - size, bp = c->r[X86_RBP];
	const uint64_t frame = sp & mask;
	/* The lowest address is touched first, so that a fault leaves no trace. */
	if (!x86_probe_write(c, base + ((sp - level * size - room) & mask), 1))
		return x86_fault(c, u);
	TRY(x86_write(c, base + (sp & mask), size, &c->r[X86_RBP]));
	for (unsigned i = 1; i < level; i++) {
		uint64_t v = 0;
		bp -= size;
		sp -= size;
		TRY(x86_read(c, base + (bp & mask), size, &v));
		TRY(x86_write(c, base + (sp & mask), size, &v));
	}
	if (level) {
		uint64_t v = (c->r[X86_RSP] & ~mask) | frame;
		sp -= size;
		TRY(x86_write(c, base + (sp & mask), size, &v));
	}
	store_sized(c, X86_RBP * 8, size, frame);
	c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | ((sp - room) & mask);
	NEXT();
}
HANDLER(xlat) /* src: segment; idx: address size */
{
	uint64_t ea = c->r[X86_RBX] + (uint8_t)c->r[X86_RAX];
	ea = u->idx == 8 ? ea : u->idx == 4 ? (uint32_t)ea : (uint16_t)ea;
	uint8_t v;
	TRY(x86_read(c, c->segbase[u->src] + ea, 1, &v));
	W_b(X86_RAX * 8, v);
	NEXT();
}
#endif
