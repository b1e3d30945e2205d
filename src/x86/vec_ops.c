/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vector operations.
 *
 * Theory of operation: imm is row << 8 | imm8; dst and src are register numbers (in a register form of a row with X86_VF_MEM_DST,
 * dst is ModRM.rm and src ModRM.reg; otherwise the other way round). The fast tier runs the row's function straight on the
 * register file and on guest memory; it does so only while fp_trap says that nothing about CR0, CR4 or MXCSR needs a look.
 * The slow tier makes every check in the order of SDM vol. 2 table 2-21: #UD, #NM, #MF, alignment, page faults, #XM.
 */
#include <string.h>

#include "x86/fp.h"
#include "x86/op.h"
#include "x86/vec.h"

static inline const struct x86_vec_row *row_of(const struct x86_op *u)
{
	return &x86_vec_table[(uint32_t)u->imm >> 8];
}

static inline void *reg_at(struct x86_cpu *c, unsigned kind, unsigned n)
{
	switch (kind) {
	case X86_VK_XMM:
		return &c->xmm[n & 15];
	case X86_VK_MM:
		return c->st[n & 7];
	default:
		return &c->r[n & 15];
	}
}

#if X86_TIER_FAST

#define SLOWLY() return x86_go_slow(c, u, table)

/* Host pointer for n bytes at ea through the TLB, aligned if the row wants it; else NULL. */
static inline void *fast_read(const struct x86_cpu *c, uint64_t ea, const struct x86_vec_row *row)
{
	const struct x86_tlb_entry *te = &c->tlb[X86_TLB_INDEX(ea)];
	if (unlikely(te->tag_r != X86_TLB_MATCH(ea, row->mem_bytes) || (row->flags & X86_VF_ALIGNED && ea & 15)))
		return NULL;
	return (void *)(ea + (uint64_t)te->add);
}
static inline void *fast_write(const struct x86_cpu *c, uint64_t ea, const struct x86_vec_row *row)
{
	const struct x86_tlb_entry *te = &c->tlb[X86_TLB_INDEX(ea)];
	if (unlikely(te->tag_w != X86_TLB_MATCH(ea, row->mem_bytes) || (row->flags & X86_VF_ALIGNED && ea & 15)))
		return NULL;
	return (void *)(ea + (uint64_t)te->add);
}

HANDLER(vec_rr)
{
	const struct x86_vec_row *row = row_of(u);
	if (unlikely(c->fp_trap))
		SLOWLY();
	const bool rm_dst = row->flags & X86_VF_MEM_DST;
	row->fn(c, reg_at(c, rm_dst ? row->rm : row->reg, u->dst), reg_at(c, rm_dst ? row->reg : row->rm, u->src),
		(uint8_t)u->imm);
	NEXT();
}

#define READ_FORM(name, EA, reg)                                                                                   \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		const struct x86_vec_row *row = row_of(u);                                                         \
		const uint64_t ea = EA;                                                                            \
		const void *p = fast_read(c, ea, row);                                                             \
		if (unlikely(!p || c->fp_trap))                                                                    \
			SLOWLY();                                                                                  \
		row->fn(c, reg, p, (uint8_t)u->imm);                                                               \
		NEXT();                                                                                            \
	}
#define WRITE_FORM(name, EA, reg)                                                                                  \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		const struct x86_vec_row *row = row_of(u);                                                         \
		const uint64_t ea = EA;                                                                            \
		void *p = fast_write(c, ea, row);                                                                  \
		if (unlikely(!p || c->fp_trap))                                                                    \
			SLOWLY();                                                                                  \
		row->fn(c, p, reg, (uint8_t)u->imm);                                                               \
		NEXT();                                                                                            \
	}
READ_FORM(vec_rm, EA0(), reg_at(c, row->reg, u->dst))
READ_FORM(vec_xm, EA0(), &c->xmm[u->dst])
READ_FORM(vec_xmi, EA1(), &c->xmm[u->dst])
WRITE_FORM(vec_mr, EA0(), reg_at(c, row->reg, u->src))
WRITE_FORM(vec_mx, EA0(), &c->xmm[u->src])
WRITE_FORM(vec_mxi, EA1(), &c->xmm[u->src])

HANDLER(vec_xx)
{
	if (unlikely(c->fp_trap))
		SLOWLY();
	row_of(u)->fn(c, &c->xmm[u->dst], &c->xmm[u->src], (uint8_t)u->imm);
	NEXT();
}

#else /* the slow tier */

/* May this row execute at all? xmm, mm: which register files it involves. */
static bool may_run(struct x86_cpu *c, bool xmm, bool mm)
{
	if (c->cr0 & X86_CR0_EM || (xmm && !(c->cr4 & X86_CR4_OSFXSR)))
		return x86_raise_noerr(c, X86_UD);
	if (c->cr0 & X86_CR0_TS)
		return x86_raise_noerr(c, X86_NM);
	if (mm && c->fsw & X86_FSW_ES)
		return x86_raise_noerr(c, X86_MF);
	return true;
}

static bool may_run_row(struct x86_cpu *c, const struct x86_vec_row *row)
{
	const bool mm = row->reg == X86_VK_MM || row->rm == X86_VK_MM;
	const bool xmm = row->reg == X86_VK_XMM || row->rm == X86_VK_XMM;
	/* MOVNTI is an SSE2 instruction on general registers: CR0.EM and OSFXSR do not concern it. */
	return (!mm && !xmm) || may_run(c, xmm, mm);
}

/* An MMX instruction executed: TOP is 0, all registers are in use, and one written has an exponent of all ones. */
static void mmx_touched(struct x86_cpu *c, int written)
{
	c->fsw &= (uint16_t)~X86_FSW_TOP;
	c->ftw = 0xff;
	if (written >= 0)
		memset(&c->st[written & 7][8], 0xff, 2);
}

/* Runs the row with guest exceptions unmasked: first on a copy; if that raises an unmasked exception nothing but the flags
 * changes and #XM follows. size: bytes of dst. */
static bool run_trapping(struct x86_cpu *c, const struct x86_vec_row *row, void *dst, const void *src, unsigned imm, unsigned size)
{
	const uint16_t fl = c->fl;
	union x86_vec tmp;
	x86_mxcsr_sync(c);
	const uint32_t control = (c->mxcsr & ~X86_MXCSR_FLAGS) | X86_MXCSR_MASKS;
	uint32_t raised = 0;
	if (!(c->mxcsr & 0x800)) {
		/* Underflow unmasked: a tiny result raises it even when exact, and FZ isn't in force. Flush-to-zero is
		 * what makes the host report tininess alone. */
		memcpy(&tmp, dst, size);
		x86_host_ldmxcsr(control | X86_MXCSR_FZ);
		row->fn(c, &tmp, src, imm);
		raised = x86_host_stmxcsr() & 0x10;
	}
	memcpy(&tmp, dst, size);
	x86_host_ldmxcsr(raised ? control & ~X86_MXCSR_FZ : control);
	row->fn(c, &tmp, src, imm);
	raised |= x86_host_stmxcsr() & X86_MXCSR_FLAGS;
	const uint32_t unmasked = raised & ~(c->mxcsr >> 7) & X86_MXCSR_FLAGS;
	if (unmasked & 7)
		raised &= 7; /* found before computing: the later ones did not happen */
	c->mxcsr |= raised;
	x86_mxcsr_reload(c);
	if (unmasked) {
		c->fl = fl;
		return x86_raise_noerr(c, c->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
	}
	memcpy(dst, &tmp, size);
	return true;
}

static bool run_row(struct x86_cpu *c, const struct x86_vec_row *row, void *dst, const void *src, unsigned imm, unsigned size)
{
	if (row->flags & X86_VF_FP && (c->mxcsr & X86_MXCSR_MASKS) != X86_MXCSR_MASKS)
		return run_trapping(c, row, dst, src, imm, size);
	row->fn(c, dst, src, imm);
	return true;
}

static unsigned kind_size(unsigned kind)
{
	return kind == X86_VK_XMM ? 16 : 8;
}

static bool read_operand(struct x86_cpu *c, const struct x86_vec_row *row, uint64_t ea, void *buf)
{
	if (row->flags & X86_VF_ALIGNED && ea & 15)
		return x86_raise(c, X86_GP, 0);
	if (row->mem_bytes <= 8)
		return x86_read(c, ea, row->mem_bytes, buf);
	return x86_read_bytes(c, ea, buf, row->mem_bytes);
}

static bool write_operand(struct x86_cpu *c, const struct x86_vec_row *row, uint64_t ea, const void *buf)
{
	if (row->flags & X86_VF_ALIGNED && ea & 15)
		return x86_raise(c, X86_GP, 0);
	if (row->mem_bytes <= 8)
		return x86_write(c, ea, row->mem_bytes, buf);
	return x86_write_bytes(c, ea, buf, row->mem_bytes);
}

static bool slow_rr(struct x86_cpu *c, const struct x86_op *u)
{
	const struct x86_vec_row *row = row_of(u);
	const bool rm_dst = row->flags & X86_VF_MEM_DST;
	const unsigned dk = rm_dst ? row->rm : row->reg, sk = rm_dst ? row->reg : row->rm;
	if (!may_run_row(c, row))
		return false;
	if (!run_row(c, row, reg_at(c, dk, u->dst), reg_at(c, sk, u->src), (uint8_t)u->imm, kind_size(dk)))
		return false;
	if (dk == X86_VK_MM || sk == X86_VK_MM)
		mmx_touched(c, dk == X86_VK_MM ? u->dst : -1);
	return true;
}

static bool slow_rm(struct x86_cpu *c, const struct x86_op *u, uint64_t ea)
{
	const struct x86_vec_row *row = row_of(u);
	if (!may_run_row(c, row) || !read_operand(c, row, ea, &c->bounce[0]))
		return false;
	if (!run_row(c, row, reg_at(c, row->reg, u->dst), &c->bounce[0], (uint8_t)u->imm, kind_size(row->reg)))
		return false;
	if (row->reg == X86_VK_MM)
		mmx_touched(c, u->dst);
	return true;
}

static bool slow_mr(struct x86_cpu *c, const struct x86_op *u, uint64_t ea)
{
	const struct x86_vec_row *row = row_of(u);
	if (!may_run_row(c, row))
		return false;
	row->fn(c, &c->bounce[0], reg_at(c, row->reg, u->src), (uint8_t)u->imm);
	if (!write_operand(c, row, ea, &c->bounce[0]))
		return false;
	if (row->reg == X86_VK_MM)
		mmx_touched(c, -1);
	return true;
}

#define SLOW_FORM(name, call)                                                                                      \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		if (unlikely(!(call)))                                                                             \
			return x86_fault(c, u);                                                                    \
		NEXT();                                                                                            \
	}
SLOW_FORM(vec_rr, slow_rr(c, u))
SLOW_FORM(vec_xx, slow_rr(c, u))
SLOW_FORM(vec_mm_rr, slow_rr(c, u))
SLOW_FORM(vec_rm, slow_rm(c, u, EA0()))
SLOW_FORM(vec_xm, slow_rm(c, u, EA0()))
SLOW_FORM(vec_xmi, slow_rm(c, u, EA1()))
SLOW_FORM(vec_mm_rm, slow_rm(c, u, EA0()))
SLOW_FORM(vec_mr, slow_mr(c, u, EA0()))
SLOW_FORM(vec_mx, slow_mr(c, u, EA0()))
SLOW_FORM(vec_mxi, slow_mr(c, u, EA1()))
SLOW_FORM(vec_mm_mr, slow_mr(c, u, EA0()))

/* MASKMOVDQU and MASKMOVQ: the bytes of dst whose mask byte in src has its top bit set go to [rDI] (base and disp of the operation). A
 * byte that is masked off is neither written nor checked. */
static bool mask_move(struct x86_cpu *c, const struct x86_op *u, uint64_t ea)
{
	const struct x86_vec_row *row = row_of(u);
	const bool mm = row->reg == X86_VK_MM;
	const unsigned n = mm ? 8 : 16;
	if (!may_run_row(c, row))
		return false;
	const uint8_t *data = reg_at(c, row->reg, u->dst), *mask = reg_at(c, row->reg, u->src);
	unsigned i = 0, first = n, last = 0;
	for (i = 0; i < n; i++)
		if (mask[i] & 0x80) {
			first = first == n ? i : first;
			last = i;
		}
	if (first < n && !x86_probe_write(c, ea + first, last - first + 1))
		return false;
	for (i = first; i < n; i++)
		if (mask[i] & 0x80 && !x86_write(c, ea + i, 1, data + i))
			return false;
	if (mm)
		mmx_touched(c, -1);
	return true;
}
SLOW_FORM(maskmov, mask_move(c, u, EA0()))

HANDLER(emms)
{
	if (!may_run(c, false, true))
		return x86_fault(c, u);
	c->fsw &= (uint16_t)~X86_FSW_TOP;
	c->ftw = 0;
	NEXT();
}

HANDLER(ldmxcsr)
{
	uint32_t v;
	if (!may_run(c, true, false) || !x86_read(c, EA0(), 4, &v))
		return x86_fault(c, u);
	if (v & ~X86_MXCSR_VALID)
		RAISE(X86_GP, 0);
	c->mxcsr = v;
	x86_mxcsr_reload(c);
	x86_update_mode(c);
	NEXT();
}

HANDLER(stmxcsr)
{
	if (!may_run(c, true, false))
		return x86_fault(c, u);
	x86_mxcsr_sync(c);
	if (!x86_write(c, EA0(), 4, &c->mxcsr))
		return x86_fault(c, u);
	NEXT();
}

#endif
