/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: protection as long mode has it, and as much of protected and real mode as starting a processor needs:
 * segment loads with their checks, returns to the same or an outer privilege level, no task switches, no call gates, no virtual-8086
 * mode (each of those is refused with #GP). SDM vol. 3 chapters 2, 3 and 5.
 */
#include "x86/system.h"

#include "base/util.h"
#include "x86/insn.h"
#include "x86/paging.h"

#define ATTR_DPL(a) (((a) >> X86_ATTR_DPL_SHIFT) & 3u)
#define TYPE_CODE 0x8u
#define TYPE_CONFORMING 0x4u
#define TYPE_RW 0x2u /* code: readable; data: writable */
#define TYPE_ACCESSED 0x1u

static bool long_mode(const struct x86_cpu *c)
{
	return c->efer & X86_EFER_LMA;
}

static void parse(uint64_t lo, uint64_t hi, bool wide, struct x86_segment *s)
{
	uint32_t limit = (uint32_t)((lo & 0xffff) | (lo >> 32 & 0xf0000));
	s->attr = (uint16_t)(lo >> 40 & 0xf0ff);
	s->limit = s->attr & X86_ATTR_G ? limit << 12 | 0xfff : limit;
	s->base = (lo >> 16 & 0xffffff) | (lo >> 32 & 0xff000000) | (wide ? hi << 32 : 0);
}

bool x86_read_descriptor(struct x86_cpu *c, uint16_t selector, bool wide, bool quiet, struct x86_descriptor *d)
{
	const bool ldt = selector & 4;
	const uint64_t base = ldt ? c->ldtr.base : c->gdtr.base;
	const uint32_t limit = ldt ? ((c->ldtr.attr & X86_ATTR_P) ? c->ldtr.limit : 0) : c->gdtr.limit;
	const uint32_t off = selector & 0xfff8u;
	uint64_t raw[2] = {0, 0};
	if (off + 7 > limit)
		return quiet ? false : x86_raise(c, X86_GP, selector & 0xfffcu);
	d->la = base + off;
	if (!long_mode(c))
		d->la = (uint32_t)d->la;
	if (!x86_read_system(c, d->la, raw, 8))
		return false;
	d->system = !(raw[0] >> 44 & 1);
	if (wide && long_mode(c)) {
		if (off + 15 > limit)
			return quiet ? false : x86_raise(c, X86_GP, selector & 0xfffcu);
		if (!x86_read_system(c, d->la + 8, &raw[1], 8))
			return false;
	}
	parse(raw[0], raw[1], wide && long_mode(c), &d->seg);
	d->seg.selector = selector;
	return true;
}

static bool set_accessed(struct x86_cpu *c, struct x86_descriptor *d)
{
	if (d->seg.attr & TYPE_ACCESSED)
		return true;
	uint8_t type;
	if (!x86_read_system(c, d->la + 5, &type, 1))
		return false;
	type |= TYPE_ACCESSED;
	d->seg.attr |= TYPE_ACCESSED;
	return x86_write_system(c, d->la + 5, &type, 1);
}

bool x86_load_segment(struct x86_cpu *c, enum x86_seg s, uint16_t selector)
{
	struct x86_segment *seg = &c->seg[s];
	if (!(c->cr0 & X86_CR0_PE)) {
		seg->selector = selector;
		seg->base = (uint32_t)selector << 4;
		x86_update_mode(c);
		return true;
	}
	const uint32_t code = selector & 0xfffcu;
	const unsigned rpl = selector & 3;
	if (!code) {
		if (s == X86_SS && (c->mode != X86_MODE_64 || c->cpl == 3 || rpl != c->cpl))
			return x86_raise(c, X86_GP, 0);
		/* A null selector is kept, with nothing behind it; SS remembers its DPL. */
		*seg = (struct x86_segment){.selector = selector};
		if (s == X86_SS)
			seg->attr = (uint16_t)(c->cpl << X86_ATTR_DPL_SHIFT);
		x86_update_mode(c);
		return true;
	}
	struct x86_descriptor d;
	if (!x86_read_descriptor(c, selector, false, false, &d))
		return false;
	const unsigned type = d.seg.attr & X86_ATTR_TYPE, dpl = ATTR_DPL(d.seg.attr);
	if (d.system)
		return x86_raise(c, X86_GP, code);
	if (s == X86_SS) {
		if (rpl != c->cpl || (type & TYPE_CODE) || !(type & TYPE_RW) || dpl != c->cpl)
			return x86_raise(c, X86_GP, code);
		if (!(d.seg.attr & X86_ATTR_P))
			return x86_raise(c, X86_SS_FAULT, code);
	} else {
		if ((type & TYPE_CODE) && !(type & TYPE_RW))
			return x86_raise(c, X86_GP, code);
		if ((type & (TYPE_CODE | TYPE_CONFORMING)) != (TYPE_CODE | TYPE_CONFORMING) && (rpl > dpl || c->cpl > dpl))
			return x86_raise(c, X86_GP, code);
		if (!(d.seg.attr & X86_ATTR_P))
			return x86_raise(c, X86_NP, code);
	}
	if (!set_accessed(c, &d))
		return false;
	*seg = d.seg;
	x86_update_mode(c);
	return true;
}

/* Checks a code segment for a transfer to privilege `cpl` and loads it. */
static bool check_cs(struct x86_cpu *c, uint16_t selector, unsigned cpl, bool is_return, struct x86_descriptor *d)
{
	const uint32_t code = selector & 0xfffcu;
	if (!code)
		return x86_raise(c, X86_GP, 0);
	if (!x86_read_descriptor(c, selector, false, false, d))
		return false;
	const unsigned type = d->seg.attr & X86_ATTR_TYPE, dpl = ATTR_DPL(d->seg.attr);
	if (d->system || !(type & TYPE_CODE))
		return x86_raise(c, X86_GP, code);
	bool fits = type & TYPE_CONFORMING ? dpl <= cpl : dpl == cpl;
	if (!is_return)
		fits = fits && ((type & TYPE_CONFORMING) || (selector & 3u) <= cpl);
	if (!fits || (long_mode(c) && (d->seg.attr & X86_ATTR_L) && (d->seg.attr & X86_ATTR_DB)))
		return x86_raise(c, X86_GP, code);
	if (!(d->seg.attr & X86_ATTR_P))
		return x86_raise(c, X86_NP, code);
	return set_accessed(c, d);
}

bool x86_load_cs_far(struct x86_cpu *c, uint16_t selector, uint64_t rip)
{
	if (!(c->cr0 & X86_CR0_PE)) {
		c->seg[X86_CS].selector = selector;
		c->seg[X86_CS].base = (uint32_t)selector << 4;
		c->rip = rip;
		x86_update_mode(c);
		return true;
	}
	struct x86_descriptor d;
	if (!check_cs(c, selector, c->cpl, false, &d))
		return false;
	if (long_mode(c) && (d.seg.attr & X86_ATTR_L) ? !x86_canonical(rip) : rip > d.seg.limit)
		return x86_raise(c, X86_GP, 0);
	d.seg.selector = (uint16_t)((selector & 0xfffcu) | c->cpl);
	c->seg[X86_CS] = d.seg;
	c->rip = rip;
	x86_update_mode(c);
	return true;
}

void x86_flat_cs(struct x86_cpu *c, uint16_t selector, unsigned dpl, bool is64)
{
	c->seg[X86_CS] = (struct x86_segment){.selector = selector, .limit = 0xffffffff,
		.attr = (uint16_t)(0xb | X86_ATTR_S | X86_ATTR_P | X86_ATTR_G | dpl << X86_ATTR_DPL_SHIFT | (is64 ? X86_ATTR_L : X86_ATTR_DB))};
	c->cpl = (uint8_t)dpl;
}

void x86_flat_ss(struct x86_cpu *c, uint16_t selector, unsigned dpl)
{
	c->seg[X86_SS] = (struct x86_segment){.selector = selector, .limit = 0xffffffff,
		.attr = (uint16_t)(0x3 | X86_ATTR_S | X86_ATTR_P | X86_ATTR_G | X86_ATTR_DB | dpl << X86_ATTR_DPL_SHIFT)};
}

/* Data segments that the new privilege may not use are emptied on a return outwards (SDM vol. 3 section 5.8.8). */
static void drop_inner_segments(struct x86_cpu *c)
{
	static const enum x86_seg data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
	for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
		struct x86_segment *s = &c->seg[data[i]];
		const unsigned type = s->attr & X86_ATTR_TYPE;
		bool conforming = (type & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);
		if ((s->attr & X86_ATTR_P) && !conforming && ATTR_DPL(s->attr) < c->cpl)
			*s = (struct x86_segment){.base = s->base};
	}
}

bool x86_iret(struct x86_cpu *c, unsigned size)
{
	const bool pe = c->cr0 & X86_CR0_PE;
	uint64_t frame[5] = {0};
	uint64_t sp = c->r[X86_RSP];
	const uint64_t mask = c->mode == X86_MODE_64 ? ~0ull : c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
	if (pe && (c->rflags & X86_FL_NT))
		return x86_raise(c, X86_GP, 0);
	unsigned n = c->mode == X86_MODE_64 ? 5 : 3;
	for (unsigned i = 0; i < n; i++)
		if (!x86_read(c, c->segbase[X86_SS] + ((sp + i * size) & mask), size, &frame[i]))
			return false;
	const uint16_t cs = (uint16_t)frame[1];
	uint64_t flags = frame[2];
	uint64_t change = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT;
	if (size > 2)
		change |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
	if (c->cpl <= ((c->rflags & X86_FL_IOPL) >> 12))
		change |= X86_FL_IF;
	if (c->cpl == 0)
		change |= X86_FL_IOPL;

	if (!pe) {
		x86_load_cs_far(c, cs, frame[0]);
		c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | ((sp + 3 * size) & mask);
		x86_set_rflags(c, (x86_get_rflags(c) & ~change) | (flags & change));
		c->nmi_masked = false;
		return true;
	}
	const unsigned rpl = cs & 3;
	if (!(cs & 0xfffc) || rpl < c->cpl)
		return x86_raise(c, X86_GP, cs & 0xfffcu);
	struct x86_descriptor code, stack;
	if (!check_cs(c, cs, rpl, true, &code))
		return false;
	const bool outward = rpl > c->cpl;
	if (outward && n == 3) {
		for (unsigned i = 3; i < 5; i++)
			if (!x86_read(c, c->segbase[X86_SS] + ((sp + i * size) & mask), size, &frame[i]))
				return false;
		n = 5;
	}
	const bool to64 = long_mode(c) && (code.seg.attr & X86_ATTR_L);
	if (to64 ? !x86_canonical(frame[0]) : frame[0] > code.seg.limit)
		return x86_raise(c, X86_GP, 0);
	bool null_ss = false;
	if (n == 5) {
		const uint16_t ss = (uint16_t)frame[4];
		if (!(ss & 0xfffc)) {
			if (!to64 || rpl == 3 || (ss & 3) != rpl)
				return x86_raise(c, X86_GP, 0);
			null_ss = true;
		} else {
			if (!x86_read_descriptor(c, ss, false, false, &stack))
				return false;
			if (stack.system || (stack.seg.attr & TYPE_CODE) || !(stack.seg.attr & TYPE_RW) || (ss & 3u) != rpl ||
			    ATTR_DPL(stack.seg.attr) != rpl)
				return x86_raise(c, X86_GP, ss & 0xfffcu);
			if (!(stack.seg.attr & X86_ATTR_P))
				return x86_raise(c, X86_SS_FAULT, ss & 0xfffcu);
			if (!set_accessed(c, &stack))
				return false;
		}
	}
	/* Nothing can fail from here on. */
	x86_set_rflags(c, (x86_get_rflags(c) & ~change) | (flags & change));
	c->seg[X86_CS] = code.seg;
	c->seg[X86_CS].selector = cs;
	c->cpl = (uint8_t)rpl;
	c->rip = frame[0];
	if (n == 5) {
		if (null_ss)
			c->seg[X86_SS] = (struct x86_segment){.selector = (uint16_t)frame[4], .attr = (uint16_t)(rpl << X86_ATTR_DPL_SHIFT)};
		else
			c->seg[X86_SS] = stack.seg;
		c->r[X86_RSP] = to64 ? frame[3] : (uint32_t)frame[3];
	} else {
		c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | ((sp + 3 * size) & mask);
	}
	if (outward)
		drop_inner_segments(c);
	c->nmi_masked = false;
	x86_update_mode(c);
	return true;
}

bool x86_lldt(struct x86_cpu *c, uint16_t selector)
{
	struct x86_descriptor d;
	if (!(selector & 0xfffc)) {
		c->ldtr = (struct x86_segment){.selector = selector};
		return true;
	}
	if (selector & 4)
		return x86_raise(c, X86_GP, selector & 0xfffcu);
	if (!x86_read_descriptor(c, selector, true, false, &d))
		return false;
	if (!d.system || (d.seg.attr & X86_ATTR_TYPE) != 2)
		return x86_raise(c, X86_GP, selector & 0xfffcu);
	if (!(d.seg.attr & X86_ATTR_P))
		return x86_raise(c, X86_NP, selector & 0xfffcu);
	c->ldtr = d.seg;
	return true;
}

bool x86_ltr(struct x86_cpu *c, uint16_t selector)
{
	struct x86_descriptor d;
	if (!(selector & 0xfffc))
		return x86_raise(c, X86_GP, 0);
	if (selector & 4)
		return x86_raise(c, X86_GP, selector & 0xfffcu);
	if (!x86_read_descriptor(c, selector, true, false, &d))
		return false;
	const unsigned type = d.seg.attr & X86_ATTR_TYPE;
	if (!d.system || (type != 9 && (type != 1 || long_mode(c))))
		return x86_raise(c, X86_GP, selector & 0xfffcu);
	if (!(d.seg.attr & X86_ATTR_P))
		return x86_raise(c, X86_NP, selector & 0xfffcu);
	uint8_t access;
	if (!x86_read_system(c, d.la + 5, &access, 1))
		return false;
	access |= 2; /* busy */
	if (!x86_write_system(c, d.la + 5, &access, 1))
		return false;
	d.seg.attr |= 2;
	c->tr = d.seg;
	return true;
}

bool x86_io_allowed(struct x86_cpu *c)
{
	return !(c->cr0 & X86_CR0_PE) || c->cpl <= ((c->rflags & X86_FL_IOPL) >> 12) || x86_raise(c, X86_GP, 0);
}

/* Control registers, SDM vol. 3 section 2.5. */
#define CR4_ALLOWED                                                                                                \
	(X86_CR4_TSD | 0x8u /* DE */ | X86_CR4_PSE | X86_CR4_PAE | 0x40u /* MCE */ | X86_CR4_PGE | 0x100u /* PCE */ | \
	 X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_SMEP | X86_CR4_SMAP)

bool x86_write_cr(struct x86_cpu *c, unsigned n, uint64_t v)
{
	switch (n) {
	case 0: {
		const uint64_t old = c->cr0;
		if (v >> 32 || ((v & X86_CR0_PG) && !(v & X86_CR0_PE)) || ((v & 0x20000000u) && !(v & 0x40000000u)))
			return x86_raise(c, X86_GP, 0);
		if ((v & X86_CR0_PG) && !(old & X86_CR0_PG)) {
			if (c->efer & X86_EFER_LME) {
				if (!(c->cr4 & X86_CR4_PAE) || (c->seg[X86_CS].attr & X86_ATTR_L))
					return x86_raise(c, X86_GP, 0);
				c->efer |= X86_EFER_LMA;
			} else {
				c->error = "the guest turned on 32-bit paging, which the software CPU does not have";
				c->leave = X86_LEAVE_ERROR;
			}
		} else if (!(v & X86_CR0_PG) && (old & X86_CR0_PG)) {
			if (c->mode == X86_MODE_64)
				return x86_raise(c, X86_GP, 0);
			c->efer &= ~(uint64_t)X86_EFER_LMA;
		}
		c->cr0 = (v & 0xe005003fu) | X86_CR0_ET;
		if ((old ^ c->cr0) & (X86_CR0_PG | X86_CR0_PE | X86_CR0_WP))
			x86_tlb_flush(c, true);
		if ((old ^ c->cr0) & X86_CR0_PE)
			c->cpl = 0;
		break;
	}
	case 2:
		c->cr2 = v;
		return true;
	case 3:
		if (long_mode(c) && v >> 46)
			return x86_raise(c, X86_GP, 0);
		c->cr3 = v;
		x86_tlb_flush(c, false);
		return true;
	case 4: {
		const uint64_t old = c->cr4;
		if ((v & ~(uint64_t)CR4_ALLOWED) || (long_mode(c) && !(v & X86_CR4_PAE)))
			return x86_raise(c, X86_GP, 0);
		c->cr4 = v;
		if ((old ^ v) & (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP))
			x86_tlb_flush(c, true);
		break;
	}
	case 8:
		if (v >> 4)
			return x86_raise(c, X86_GP, 0);
		c->env->set_cr8(c, v);
		return true;
	default:
		return x86_raise_noerr(c, X86_UD);
	}
	x86_update_mode(c);
	return true;
}

bool x86_read_cr(struct x86_cpu *c, unsigned n, uint64_t *v)
{
	switch (n) {
	case 0: *v = c->cr0; return true;
	case 2: *v = c->cr2; return true;
	case 3: *v = c->cr3; return true;
	case 4: *v = c->cr4; return true;
	case 8: *v = c->env->get_cr8(c); return true;
	}
	return x86_raise_noerr(c, X86_UD);
}

/* Model-specific registers, SDM vol. 4. */
enum {
	MSR_PLATFORM_ID = 0x17, MSR_UCODE_REV = 0x8b, MSR_MTRRCAP = 0xfe, MSR_ARCH_CAPS = 0x10a, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP,
	MSR_SYSENTER_EIP, MSR_MCG_CAP = 0x179, MSR_MCG_STATUS = 0x17a, MSR_MISC_ENABLE = 0x1a0, MSR_MTRR_FIRST = 0x200, MSR_MTRR_LAST = 0x20f,
	MSR_PAT = 0x277, MSR_MTRR_DEF = 0x2ff, MSR_EFER = 0xc0000080, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK, MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX,
};

/* Fixed-range MTRRs have their own numbers. */
static int fixed_mtrr(uint32_t msr)
{
	if (msr == 0x250)
		return 16;
	if (msr == 0x258 || msr == 0x259)
		return (int)(17 + msr - 0x258);
	if (msr >= 0x268 && msr <= 0x26f)
		return (int)(19 + msr - 0x268);
	return -1;
}

static uint64_t *plain_msr(struct x86_cpu *c, uint32_t msr)
{
	switch (msr) {
	case MSR_SYSENTER_CS: return &c->sysenter_cs;
	case MSR_SYSENTER_ESP: return &c->sysenter_esp;
	case MSR_SYSENTER_EIP: return &c->sysenter_eip;
	case MSR_MISC_ENABLE: return &c->misc_enable;
	case MSR_PAT: return &c->pat;
	case MSR_MTRR_DEF: return &c->mtrr_def_type;
	case MSR_STAR: return &c->star;
	case MSR_LSTAR: return &c->lstar;
	case MSR_CSTAR: return &c->cstar;
	case MSR_SFMASK: return &c->sfmask;
	case MSR_FS_BASE: return &c->seg[X86_FS].base;
	case MSR_GS_BASE: return &c->seg[X86_GS].base;
	case MSR_KERNEL_GS_BASE: return &c->kernel_gs_base;
	case MSR_TSC_AUX: return &c->tsc_aux;
	}
	if (msr >= MSR_MTRR_FIRST && msr <= MSR_MTRR_LAST)
		return &c->mtrr[msr - MSR_MTRR_FIRST];
	int f = fixed_mtrr(msr);
	return f < 0 ? NULL : &c->mtrr[f];
}

bool x86_read_msr(struct x86_cpu *c, uint32_t msr, uint64_t *v)
{
	const uint64_t *p = plain_msr(c, msr);
	if (p) {
		*v = *p;
		return true;
	}
	switch (msr) {
	case MSR_EFER:
		*v = c->efer;
		return true;
	case MSR_ARCH_CAPS:
		*v = X86_V2_ARCH_CAPABILITIES;
		return true;
	case MSR_MTRRCAP: /* 8 variable ranges, fixed ranges, write-combining */
		*v = 0x508;
		return true;
	case MSR_PLATFORM_ID: case MSR_UCODE_REV: case MSR_MCG_CAP: case MSR_MCG_STATUS: case X86_MSR_SPEC_CTRL:
		*v = 0;
		return true;
	}
	if (!c->env->rdmsr || c->env->rdmsr(c, msr, v) < 0)
		return x86_raise(c, X86_GP, 0);
	return true;
}

bool x86_write_msr(struct x86_cpu *c, uint32_t msr, uint64_t v)
{
	switch (msr) {
	case MSR_LSTAR: case MSR_CSTAR: case MSR_FS_BASE: case MSR_GS_BASE: case MSR_KERNEL_GS_BASE: case MSR_SYSENTER_ESP: case MSR_SYSENTER_EIP:
		if (!x86_canonical(v))
			return x86_raise(c, X86_GP, 0);
		break;
	case MSR_PAT:
		for (unsigned i = 0; i < 8; i++) {
			unsigned t = (unsigned)(v >> (8 * i)) & 0xff;
			if (t > 7 || t == 2 || t == 3)
				return x86_raise(c, X86_GP, 0);
		}
		break;
	case MSR_EFER: {
		const uint64_t allowed = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
		if ((v & ~allowed) || ((c->cr0 & X86_CR0_PG) && ((v ^ c->efer) & X86_EFER_LME)))
			return x86_raise(c, X86_GP, 0);
		uint64_t old = c->efer;
		c->efer = (v & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA);
		if ((old ^ c->efer) & X86_EFER_NXE)
			x86_tlb_flush(c, true);
		x86_update_mode(c);
		return true;
	}
	case X86_MSR_SPEC_CTRL: case X86_MSR_PRED_CMD: /* nothing here speculates */
		if (v & ~(msr == X86_MSR_PRED_CMD ? 1 : X86_SPEC_CTRL_WRITABLE))
			return x86_raise(c, X86_GP, 0);
		return true;
	case MSR_UCODE_REV: case MSR_MCG_STATUS:
		return true;
	}
	uint64_t *p = plain_msr(c, msr);
	if (p) {
		*p = v;
		if (msr == MSR_FS_BASE || msr == MSR_GS_BASE)
			x86_update_mode(c);
		return true;
	}
	if (!c->env->wrmsr || c->env->wrmsr(c, msr, v) < 0)
		return x86_raise(c, X86_GP, 0);
	return true;
}
