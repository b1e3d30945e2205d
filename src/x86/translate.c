/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one function an opcode map; each picks the operation for an instruction and fills its fields. Where a form has no
 * handler of its own it is put together from others: an address-prefix operation computes odd addresses into slot EA, a load
 * brings a rarely used memory operand into slot TMP first, a store takes a result from there. All operations of an instruction carry its
 * `ip`, and only the last one changes anything a program can see.
 */
#include "x86/translate.h"

#include "x86/opcodes.h"
#include "x86/vec.h"
#include "x86/x87.h"

#define SLOT(r) ((uint8_t)((r) * 8))
#define SLOT_ZERO SLOT(X86_R_ZERO)
#define SLOT_EA   SLOT(X86_R_EA)
#define SLOT_TMP  SLOT(X86_R_TMP)

struct ctx {
	const struct x86_insn *i;
	struct x86_op *op;
	struct x86_xlat *x;
	uint16_t ip;
	unsigned off;
};

static struct x86_op *emit(struct ctx *t, unsigned h)
{
	struct x86_op *o = &t->op[t->x->n_ops++];
	*o = (struct x86_op){.h = (uint16_t)h, .ip = t->ip, .dst = SLOT_ZERO, .src = SLOT_ZERO, .base = SLOT_ZERO, .idx = SLOT_ZERO};
	return o;
}

static void undefined(struct ctx *t)
{
	t->x->n_ops = 0;
	emit(t, X86_OP_ud);
	t->x->ends_block = true;
	t->x->uses_flags = true;
}

/* Byte registers 4 to 7 are AH CH DH BH unless there is a REX prefix. */
static uint8_t slot8(const struct ctx *t, unsigned r)
{
	return !t->i->rex && r >= 4 && r < 8 ? (uint8_t)((r - 4) * 8 + 1) : SLOT(r);
}
static uint8_t slot_of(const struct ctx *t, unsigned r, unsigned sz)
{
	return sz == 0 ? slot8(t, r) : SLOT(r);
}
/* 0 1 2 3 for operand sizes 1 2 4 8. */
static unsigned size_index(unsigned bytes)
{
	return bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
}
/* Size index of an instruction whose even opcode is the byte form. */
static unsigned insn_size(const struct ctx *t)
{
	return t->i->op & 1 ? size_index(t->i->opsize) : 0;
}

static unsigned segment(const struct x86_insn *i)
{
	return i->seg != X86_NO_SEG ? i->seg : i->mode == X86_MODE_64 ? X86_NO_SEG : i->stack_seg ? X86_SS : X86_DS;
}

/* Where an operation finds its memory operand. */
struct addr {
	uint8_t base, idx;
	int32_t disp;
	bool indexed;
};

/* The address of the memory operand; emits an address-prefix operation unless it is base + disp (or, with may_index, base + index * scale +
 * disp) in 64-bit mode without a segment. with_segment false: LEA. */
static struct addr address_of(struct ctx *t, bool may_index, bool with_segment)
{
	const struct x86_insn *i = t->i;
	const unsigned seg = with_segment ? segment(i) : X86_NO_SEG;
	const bool plain = i->addrsize == 8 && seg == X86_NO_SEG;
	int64_t disp = i->disp;
	if (i->base == X86_RIP_REG) {
		/* The slot holds the page, so the offset of the next instruction goes into the displacement. */
		disp += t->off + i->len;
		if (disp != (int32_t)disp || (i->addrsize != 8)) {
			struct x86_op *o = emit(t, X86_OP_ea_rip);
			o->src = (uint8_t)seg;
			o->disp = i->disp;
			o->imm = (int32_t)(t->off + i->len);
			o->dst = i->addrsize == 8 ? 0 : 1;
			return (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
		}
	}
	const uint8_t base = SLOT(i->base), idx = (uint8_t)(SLOT(i->index) | i->scale);
	const bool has_index = i->index != X86_NO_REG;
	if (plain && (!has_index || may_index))
		return (struct addr){.base = base, .idx = idx, .disp = (int32_t)disp, .indexed = has_index};
	struct x86_op *o = emit(t, i->addrsize == 8 && i->mode == X86_MODE_64 ? X86_OP_ea_seg : X86_OP_ea);
	o->base = base;
	o->idx = idx;
	o->disp = (int32_t)disp;
	o->src = (uint8_t)seg;
	o->dst = i->addrsize == 8 ? 0 : i->addrsize == 4 ? 1 : 2;
	return (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
}

/* Emits an operation on the memory operand. */
static struct x86_op *emit_mem(struct ctx *t, unsigned h)
{
	struct addr a = address_of(t, false, true);
	struct x86_op *o = emit(t, h);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	t->x->uses_flags = true;
	return o;
}

/* As emit_mem, with a second handler for indexed addresses. */
static struct x86_op *emit_mem_x(struct ctx *t, unsigned h, unsigned h_indexed)
{
	struct addr a = address_of(t, true, true);
	struct x86_op *o = emit(t, a.indexed ? h_indexed : h);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	t->x->uses_flags = true;
	return o;
}

/* The slot where the r/m operand can be read: its register, or TMP after a load. */
static uint8_t rm_source(struct ctx *t, unsigned sz)
{
	const struct x86_insn *i = t->i;
	if (i->mod == 3)
		return slot_of(t, i->rm, sz);
	struct x86_op *o = emit_mem_x(t, X86_OP_mov_rm_b + sz, X86_OP_mov_rmx_b + sz);
	o->dst = SLOT_TMP;
	return SLOT_TMP;
}

/* Ends the block after an instruction that leaves it through the run loop. */
static void ends(struct ctx *t)
{
	t->x->ends_block = true;
	t->x->uses_flags = true;
}

static struct x86_op *emit_end(struct ctx *t, unsigned h)
{
	ends(t);
	return emit(t, h);
}

static bool is_64(const struct ctx *t)
{
	return t->i->mode == X86_MODE_64;
}

/* Stack operand size: 8 by default in 64-bit mode (2 with a 66 prefix). */
static unsigned stack_size(const struct ctx *t)
{
	return !is_64(t) ? t->i->opsize : t->i->p66 && !(t->i->rex & 8) ? 2 : 8;
}

/* ALU families: enumerators of add_rr_b, or_rr_b, ... with 6 forms of 6 each (5 forms for cmp and test of 4). */
static const uint16_t alu_base[8] = {X86_OP_add_rr_b, X86_OP_or_rr_b, X86_OP_adc_rr_b, X86_OP_sbb_rr_b,
				     X86_OP_and_rr_b, X86_OP_sub_rr_b, X86_OP_xor_rr_b, X86_OP_cmp_rr_b};
static const uint16_t lock_base[8] = {X86_OP_lock_add_b, X86_OP_lock_or_b, X86_OP_lock_adc_b, X86_OP_lock_sbb_b,
				      X86_OP_lock_and_b, X86_OP_lock_sub_b, X86_OP_lock_xor_b, 0};
enum alu_form { RR, RI, RM, MR, MI };
#define ALU_CMP 7

static void note_flags(struct ctx *t, bool takes_carry, bool has_nf)
{
	t->x->sets_all_flags = !takes_carry;
	if (takes_carry)
		t->x->uses_flags = true;
	if (has_nf) {
		t->x->no_flags = (int16_t)(t->x->n_ops - 1);
		t->x->no_flags_by = 2;
	}
}

static struct x86_op *alu(struct ctx *t, unsigned which, enum alu_form form, unsigned sz)
{
	const bool cmp = which == ALU_CMP;
	const unsigned h = alu_base[which] + (unsigned)form * (cmp ? 4 : 6) + sz;
	struct x86_op *o = form >= RM ? emit_mem(t, h) : emit(t, h);
	note_flags(t, which == 2 || which == 3, !cmp && sz >= 2);
	return o;
}

static void locked_alu(struct ctx *t, unsigned which, unsigned sz, bool imm, int32_t value, uint8_t src)
{
	struct addr a = address_of(t, false, true);
	if (imm) {
		struct x86_op *o = emit(t, X86_OP_mov_ri_q);
		o->dst = SLOT_TMP;
		o->imm = value;
		src = SLOT_TMP;
	}
	struct x86_op *o = emit(t, lock_base[which] + sz);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	o->src = src;
	t->x->uses_flags = true;
}

/* Jump to another page goes by address; within the page by a link. */
static bool same_page(const struct ctx *t, int64_t rel, int32_t *target)
{
	int64_t at = (int64_t)t->off + t->i->len + rel;
	*target = (int32_t)at;
	return at >= 0 && at < (int64_t)MEM_PAGE_SIZE;
}

static void conditional(struct ctx *t, unsigned cc)
{
	ends(t);
	t->x->uses_flags = true;
	if (!is_64(t)) {
		struct x86_op *o = emit(t, X86_OP_lg_jcc);
		o->dst = (uint8_t)cc;
		o->imm = (int32_t)t->i->imm;
		o->idx = t->i->opsize;
		return;
	}
	int32_t target;
	bool near = same_page(t, t->i->imm, &target);
	struct x86_op *o = emit(t, (near ? X86_OP_j_o : X86_OP_jf_o) + cc);
	o->imm = near ? target : (int32_t)t->i->imm;
	t->x->needs_next = true;
}

static void jump_or_call(struct ctx *t, bool call)
{
	ends(t);
	if (!is_64(t)) {
		struct x86_op *o = emit(t, call ? X86_OP_lg_call : X86_OP_lg_jmp);
		o->imm = (int32_t)t->i->imm;
		o->idx = t->i->opsize;
		return;
	}
	int32_t target;
	bool near = same_page(t, t->i->imm, &target);
	struct x86_op *o = emit(t, call ? (near ? X86_OP_call_near : X86_OP_call_far) : (near ? X86_OP_goto_near : X86_OP_jmp_far));
	o->imm = near ? target : (int32_t)t->i->imm;
}

static void push_slot(struct ctx *t, uint8_t slot, int32_t imm, bool is_imm)
{
	const unsigned size = stack_size(t);
	t->x->uses_flags = true;
	if (is_64(t) && size == 8) {
		struct x86_op *o = emit(t, is_imm ? X86_OP_push_i : X86_OP_push_r);
		o->src = slot;
		o->imm = imm;
	} else if (is_64(t)) {
		if (is_imm) {
			struct x86_op *m = emit(t, X86_OP_mov_ri_q);
			m->dst = slot = SLOT_TMP;
			m->imm = imm;
		}
		emit(t, X86_OP_push_w)->src = slot;
	} else {
		struct x86_op *o = emit(t, X86_OP_lg_push);
		o->src = slot;
		o->imm = imm;
		o->idx = (uint8_t)size;
	}
}

static void pop_slot(struct ctx *t, uint8_t slot)
{
	const unsigned size = stack_size(t);
	t->x->uses_flags = true;
	struct x86_op *o = emit(t, is_64(t) ? (size == 8 ? X86_OP_pop_r : X86_OP_pop_w) : X86_OP_lg_pop);
	o->dst = slot;
	o->idx = (uint8_t)size;
}

static void string_op(struct ctx *t, unsigned h)
{
	const struct x86_insn *i = t->i;
	struct x86_op *o = emit(t, h);
	o->dst = (uint8_t)(i->op & 1 ? i->opsize : 1);
	if ((h == X86_OP_ins || h == X86_OP_outs) && o->dst == 8)
		o->dst = 4;
	o->src = i->addrsize;
	o->idx = (uint8_t)(i->seg != X86_NO_SEG ? i->seg : X86_DS);
	o->imm = i->rep ? 1 : i->repne ? 2 : 0;
	t->x->uses_flags = true;
}

static void shift(struct ctx *t, bool by_cl, int32_t count)
{
	static const uint16_t base[8] = {X86_OP_rol_ri_b, X86_OP_ror_ri_b, X86_OP_rcl_ri_b, X86_OP_rcr_ri_b,
					 X86_OP_shl_ri_b, X86_OP_shr_ri_b, X86_OP_shl_ri_b, X86_OP_sar_ri_b};
	const struct x86_insn *i = t->i;
	const unsigned sz = insn_size(t), which = i->reg & 7;
	const unsigned h = base[which] + (by_cl ? 4 : 0) + sz;
	t->x->uses_flags = true;
	if (i->mod != 3) {
		emit_mem(t, h + 8)->imm = count;
		return;
	}
	struct x86_op *o = emit(t, h);
	o->dst = slot_of(t, i->rm, sz);
	o->imm = count;
	/* A shift by a constant other than 0 sets all flags; by 0 or by CL it may keep them. */
	if (!by_cl && which >= 4 && (count & (sz == 3 ? 63 : 31))) {
		t->x->uses_flags = false;
		t->x->sets_all_flags = true;
		if (sz >= 2) {
			unsigned nf = which == 5 ? X86_OP_shr_rin_l : which == 7 ? X86_OP_sar_rin_l : X86_OP_shl_rin_l;
			t->x->no_flags = (int16_t)(t->x->n_ops - 1);
			t->x->no_flags_by = (int16_t)(nf + sz - 2 - h);
		}
	}
}

static void group3(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	const unsigned sz = insn_size(t), which = i->reg & 7;
	struct x86_op *o;
	if (which < 2) { /* TEST r/m, imm */
		if (i->mod == 3) {
			o = emit(t, X86_OP_test_ri_b + sz);
			o->dst = slot_of(t, i->rm, sz);
		} else {
			o = emit_mem(t, X86_OP_test_mi_b + sz);
		}
		o->imm = (int32_t)i->imm;
		note_flags(t, false, false);
		return;
	}
	if (which < 4) { /* NOT, NEG */
		if (i->mod != 3) {
			if (i->lock)
				emit_mem(t, (which == 2 ? X86_OP_lock_not_b : X86_OP_lock_neg_b) + sz);
			else
				emit_mem(t, (which == 2 ? X86_OP_not_m_b : X86_OP_neg_m_b) + sz);
			return;
		}
		o = emit(t, (which == 2 ? X86_OP_not_r_b : X86_OP_neg_r_b) + sz);
		o->dst = slot_of(t, i->rm, sz);
		if (which == 3)
			note_flags(t, false, sz >= 2);
		return;
	}
	static const uint16_t base[4] = {X86_OP_mul_b, X86_OP_imul1_b, X86_OP_div_b, X86_OP_idiv_b};
	uint8_t src = rm_source(t, sz);
	emit(t, base[which - 4] + sz)->src = src;
	t->x->uses_flags = true;
}

static void group5(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	const unsigned sz = insn_size(t), which = i->reg & 7;
	struct x86_op *o;
	switch (which) {
	case 0: case 1: /* INC, DEC: CF is kept, so they read flags */
		t->x->uses_flags = true;
		if (i->mod != 3) {
			if (i->lock)
				emit_mem(t, (which ? X86_OP_lock_dec_b : X86_OP_lock_inc_b) + sz);
			else
				emit_mem(t, (which ? X86_OP_dec_m_b : X86_OP_inc_m_b) + sz);
			return;
		}
		o = emit(t, (which ? X86_OP_dec_r_b : X86_OP_inc_r_b) + sz);
		o->dst = slot_of(t, i->rm, sz);
		if (sz >= 2) {
			/* Where all flags are dead the carry need not be kept either. */
			t->x->uses_flags = false;
			t->x->no_flags = (int16_t)(t->x->n_ops - 1);
			t->x->no_flags_by = 2;
		}
		return;
	}
	if (!(i->op & 1)) {
		undefined(t);
		return;
	}
	switch (which) {
	case 2: case 4: { /* near CALL, JMP */
		const bool call = which == 2;
		ends(t);
		if (!is_64(t)) {
			uint8_t src;
			if (i->mod == 3) {
				src = SLOT(i->rm);
			} else {
				o = emit_mem(t, X86_OP_mov_rm_b + size_index(i->opsize));
				o->dst = src = SLOT_TMP;
			}
			o = emit(t, call ? X86_OP_lg_call_r : X86_OP_lg_jmp_r);
			o->src = src;
			o->idx = i->opsize;
		} else if (i->mod == 3) {
			emit(t, call ? X86_OP_call_r : X86_OP_jmp_r)->src = SLOT(i->rm);
		} else {
			emit_mem(t, call ? X86_OP_call_m : X86_OP_jmp_m);
		}
		return;
	}
	case 3: case 5:
		if (i->mod == 3)
			break;
		o = emit_mem(t, which == 3 ? X86_OP_call_fm : X86_OP_jmp_fm);
		o->idx = i->opsize;
		ends(t);
		return;
	case 6:
		if (i->mod == 3) {
			push_slot(t, SLOT(i->rm), 0, false);
		} else if (is_64(t) && stack_size(t) == 8) {
			emit_mem(t, X86_OP_push_m);
		} else if (is_64(t)) {
			o = emit_mem(t, X86_OP_mov_rm_w);
			o->dst = SLOT_TMP;
			emit(t, X86_OP_push_w)->src = SLOT_TMP;
		} else {
			emit_mem(t, X86_OP_lg_push_m)->idx = i->opsize;
		}
		return;
	}
	undefined(t);
}

/* Register slot in the low bits of the opcode, with REX.B. */
static unsigned opcode_reg(const struct ctx *t)
{
	return (t->i->op & 7u) | (t->i->rex & 1u) << 3;
}

static void mov_immediate(struct ctx *t, unsigned r, unsigned sz, int64_t imm)
{
	struct x86_op *o;
	if (sz == 3 && imm != (int32_t)imm) {
		o = emit(t, X86_OP_mov_ri64);
		o->disp = (int32_t)imm;
		o->imm = (int32_t)((uint64_t)imm >> 32);
	} else {
		o = emit(t, X86_OP_mov_ri_b + sz);
		o->imm = (int32_t)imm;
	}
	o->dst = slot_of(t, r, sz);
}

static void alu_opcode(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	const unsigned which = i->op >> 3, sz = insn_size(t);
	struct x86_op *o;
	if ((i->op & 7) >= 4) { /* accumulator, immediate */
		o = alu(t, which, RI, sz);
		o->dst = SLOT(X86_RAX);
		o->imm = (int32_t)i->imm;
		return;
	}
	const uint8_t reg = slot_of(t, i->reg, sz);
	if (i->mod == 3) {
		const uint8_t rm = slot_of(t, i->rm, sz);
		const bool to_reg = i->op & 2;
		if (which == 6 && sz >= 2 && reg == rm) {
			emit(t, X86_OP_zero)->dst = reg;
			note_flags(t, false, false);
			return;
		}
		o = alu(t, which, RR, sz);
		o->dst = to_reg ? reg : rm;
		o->src = to_reg ? rm : reg;
		return;
	}
	if (i->op & 2) {
		alu(t, which, RM, sz)->dst = reg;
	} else if (i->lock) {
		locked_alu(t, which, sz, false, 0, reg);
	} else {
		alu(t, which, MR, sz)->src = reg;
	}
}

static void map_1(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	struct x86_op *o;
	const uint8_t op = i->op;
	if (op < 0x40 && (op & 7) < 6) {
		alu_opcode(t);
		return;
	}
	switch (op) {
	case 0x06: case 0x0e: case 0x16: case 0x1e:
		o = emit(t, X86_OP_push_seg);
		o->src = (uint8_t)(op >> 3);
		o->idx = i->opsize;
		t->x->uses_flags = true;
		return;
	case 0x07: case 0x17: case 0x1f:
		o = emit_end(t, X86_OP_pop_seg);
		o->dst = (uint8_t)(op >> 3);
		o->idx = i->opsize;
		return;
	case 0x27: case 0x2f: case 0x37: case 0x3f: case 0xd4: case 0xd5:
		o = emit(t, X86_OP_lg_bcd);
		o->imm = op;
		o->dst = (uint8_t)i->imm;
		t->x->uses_flags = true;
		return;
	case 0x40 ... 0x4f: /* INC, DEC in 16- and 32-bit modes */
		o = emit(t, (op & 8 ? X86_OP_dec_r_b : X86_OP_inc_r_b) + size_index(i->opsize));
		o->dst = SLOT(op & 7u);
		t->x->uses_flags = true;
		return;
	case 0x50 ... 0x57:
		push_slot(t, SLOT(opcode_reg(t)), 0, false);
		return;
	case 0x58 ... 0x5f:
		pop_slot(t, SLOT(opcode_reg(t)));
		return;
	case 0x60: case 0x61:
		emit(t, op == 0x60 ? X86_OP_lg_pusha : X86_OP_lg_popa)->idx = i->opsize;
		t->x->uses_flags = true;
		return;
	case 0x63:
		if (!is_64(t))
			break;
		if (i->opsize == 8) {
			if (i->mod == 3) {
				o = emit(t, X86_OP_movsx_rr_lq);
				o->src = SLOT(i->rm);
			} else {
				o = emit_mem(t, X86_OP_movsx_rm_lq);
			}
			o->dst = SLOT(i->reg);
		} else {
			uint8_t src = rm_source(t, size_index(i->opsize));
			o = emit(t, X86_OP_mov_rr_b + size_index(i->opsize));
			o->dst = SLOT(i->reg);
			o->src = src;
		}
		return;
	case 0x68: case 0x6a:
		push_slot(t, SLOT_ZERO, (int32_t)i->imm, true);
		return;
	case 0x69: case 0x6b: {
		const unsigned sz = size_index(i->opsize);
		uint8_t src = rm_source(t, sz);
		o = emit(t, X86_OP_imul_rri_w + sz - 1);
		o->dst = SLOT(i->reg);
		o->src = src;
		o->imm = (int32_t)i->imm;
		t->x->sets_all_flags = i->mod == 3;
		return;
	}
	case 0x6c: case 0x6d:
		string_op(t, X86_OP_ins);
		return;
	case 0x6e: case 0x6f:
		string_op(t, X86_OP_outs);
		return;
	case 0x70 ... 0x7f:
		conditional(t, op & 15u);
		return;
	case 0x80 ... 0x83: {
		const unsigned sz = insn_size(t), which = i->reg & 7;
		if (i->mod == 3) {
			o = alu(t, which, RI, sz);
			o->dst = slot_of(t, i->rm, sz);
		} else if (i->lock) {
			locked_alu(t, which, sz, true, (int32_t)i->imm, 0);
			return;
		} else {
			o = alu(t, which, MI, sz);
		}
		o->imm = (int32_t)i->imm;
		return;
	}
	case 0x84: case 0x85: {
		const unsigned sz = insn_size(t);
		if (i->mod == 3) {
			o = emit(t, X86_OP_test_rr_b + sz);
			o->dst = slot_of(t, i->rm, sz);
		} else {
			o = emit_mem(t, X86_OP_test_mr_b + sz);
		}
		o->src = slot_of(t, i->reg, sz);
		note_flags(t, false, false);
		return;
	}
	case 0x86: case 0x87: {
		const unsigned sz = insn_size(t);
		if (i->mod == 3) {
			o = emit(t, X86_OP_xchg_rr_b + sz);
			o->dst = slot_of(t, i->rm, sz);
		} else {
			o = emit_mem(t, X86_OP_xchg_m_b + sz);
		}
		o->src = slot_of(t, i->reg, sz);
		return;
	}
	case 0x88 ... 0x8b: {
		const unsigned sz = insn_size(t);
		const uint8_t reg = slot_of(t, i->reg, sz);
		if (i->mod == 3) {
			const uint8_t rm = slot_of(t, i->rm, sz);
			o = emit(t, X86_OP_mov_rr_b + sz);
			o->dst = op & 2 ? reg : rm;
			o->src = op & 2 ? rm : reg;
		} else if (op & 2) {
			emit_mem_x(t, X86_OP_mov_rm_b + sz, X86_OP_mov_rmx_b + sz)->dst = reg;
		} else {
			emit_mem_x(t, X86_OP_mov_mr_b + sz, X86_OP_mov_mrx_b + sz)->src = reg;
		}
		return;
	}
	case 0x8c:
		if ((i->reg & 7) > 5)
			break;
		if (i->mod == 3) {
			o = emit(t, X86_OP_mov_rseg);
			o->dst = SLOT(i->rm);
			o->src = i->reg & 7;
			o->idx = i->opsize;
		} else {
			struct addr a = address_of(t, false, true);
			o = emit(t, X86_OP_mov_rseg);
			o->dst = SLOT_TMP;
			o->src = i->reg & 7;
			o = emit(t, X86_OP_mov_mr_w);
			o->base = a.base;
			o->idx = a.idx;
			o->disp = a.disp;
			o->src = SLOT_TMP;
			t->x->uses_flags = true;
		}
		return;
	case 0x8d: {
		if (i->mod == 3)
			break;
		struct addr a = address_of(t, true, false);
		if (i->opsize == 2 || a.base == SLOT_EA) {
			if (a.base != SLOT_EA) {
				o = emit(t, a.indexed ? X86_OP_leax_q : X86_OP_lea_q);
				o->dst = SLOT_EA;
				o->base = a.base;
				o->idx = a.idx;
				o->disp = a.disp;
			}
			o = emit(t, X86_OP_mov_rr_b + size_index(i->opsize));
			o->src = SLOT_EA;
		} else {
			o = emit(t, (a.indexed ? X86_OP_leax_l : X86_OP_lea_l) + (i->opsize == 8));
			o->base = a.base;
			o->idx = a.idx;
			o->disp = a.disp;
		}
		o->dst = SLOT(i->reg);
		return;
	}
	case 0x8e: {
		const unsigned seg = i->reg & 7;
		if (seg > 5 || seg == X86_CS)
			break;
		uint8_t src = rm_source(t, 1);
		o = emit_end(t, X86_OP_mov_segr);
		o->dst = (uint8_t)seg;
		o->src = src;
		return;
	}
	case 0x8f:
		if (i->reg & 7)
			break;
		if (i->mod == 3) {
			pop_slot(t, SLOT(i->rm));
		} else {
			/* RSP as a base counts after the pop (SDM vol. 2 POP). */
			const unsigned size = stack_size(t);
			struct x86_insn popped = *i;
			if (i->base == X86_RSP)
				popped.disp += (int32_t)size;
			t->i = &popped;
			if (is_64(t) && size == 8) {
				emit_mem(t, X86_OP_pop_m);
			} else if (is_64(t)) {
				struct addr a = address_of(t, false, true);
				o = emit(t, X86_OP_mov_rm_w);
				o->base = SLOT(X86_RSP);
				o->idx = SLOT_ZERO;
				o->dst = SLOT_TMP;
				o = emit(t, X86_OP_mov_mr_w);
				o->base = a.base;
				o->idx = a.idx;
				o->disp = a.disp;
				o->src = SLOT_TMP;
				o = emit(t, X86_OP_lea_q);
				o->dst = o->base = SLOT(X86_RSP);
				o->idx = SLOT_ZERO;
				o->disp = 2;
				t->x->uses_flags = true;
			} else {
				emit_mem(t, X86_OP_lg_pop_m)->idx = i->opsize;
			}
			t->i = i;
		}
		return;
	case 0x90 ... 0x97: {
		const unsigned r = opcode_reg(t);
		if (r == 0 || (op == 0x90 && i->rep)) { /* F3 90 is PAUSE even with REX.B */
			emit(t, i->rep && op == 0x90 ? X86_OP_pause : X86_OP_nop);
			return;
		}
		o = emit(t, X86_OP_xchg_rr_b + size_index(i->opsize));
		o->dst = SLOT(X86_RAX);
		o->src = SLOT(r);
		return;
	}
	case 0x98:
		emit(t, i->opsize == 2 ? X86_OP_cbw : i->opsize == 4 ? X86_OP_cwde : X86_OP_cdqe);
		return;
	case 0x99:
		emit(t, i->opsize == 2 ? X86_OP_cwd : i->opsize == 4 ? X86_OP_cdq : X86_OP_cqo);
		return;
	case 0x9a: case 0xea:
		o = emit_end(t, op == 0x9a ? X86_OP_call_ptr : X86_OP_jmp_ptr);
		o->disp = (int32_t)i->imm;
		o->imm = (int32_t)(i->imm >> 32 & 0xffff);
		o->idx = i->opsize;
		return;
	case 0x9b:
		emit(t, X86_OP_fwait);
		t->x->uses_flags = true;
		return;
	case 0x9c:
		emit(t, X86_OP_pushf)->idx = (uint8_t)stack_size(t);
		t->x->uses_flags = true;
		return;
	case 0x9d:
		emit_end(t, X86_OP_popf)->idx = (uint8_t)stack_size(t);
		return;
	case 0x9e: case 0x9f:
		emit(t, op == 0x9e ? X86_OP_sahf : X86_OP_lahf);
		t->x->uses_flags = true;
		return;
	case 0xa0 ... 0xa3: {
		const unsigned sz = insn_size(t);
		const unsigned seg = i->seg != X86_NO_SEG ? i->seg : is_64(t) ? X86_NO_SEG : X86_DS;
		o = emit(t, X86_OP_mov_ri64);
		o->dst = SLOT_EA;
		o->disp = (int32_t)i->imm;
		o->imm = (int32_t)((uint64_t)i->imm >> 32);
		o = emit(t, X86_OP_ea_seg);
		o->base = SLOT_EA;
		o->src = (uint8_t)seg;
		o = emit(t, (op & 2 ? X86_OP_mov_mr_b : X86_OP_mov_rm_b) + sz);
		o->base = SLOT_EA;
		o->dst = o->src = SLOT(X86_RAX);
		t->x->uses_flags = true;
		return;
	}
	case 0xa4: case 0xa5:
		string_op(t, X86_OP_movs);
		return;
	case 0xa6: case 0xa7:
		string_op(t, X86_OP_cmps);
		return;
	case 0xa8: case 0xa9:
		o = emit(t, X86_OP_test_ri_b + insn_size(t));
		o->dst = SLOT(X86_RAX);
		o->imm = (int32_t)i->imm;
		note_flags(t, false, false);
		return;
	case 0xaa: case 0xab:
		string_op(t, X86_OP_stos);
		return;
	case 0xac: case 0xad:
		string_op(t, X86_OP_lods);
		return;
	case 0xae: case 0xaf:
		string_op(t, X86_OP_scas);
		return;
	case 0xb0 ... 0xb7:
		mov_immediate(t, opcode_reg(t), 0, i->imm);
		return;
	case 0xb8 ... 0xbf:
		mov_immediate(t, opcode_reg(t), size_index(i->opsize), i->imm);
		return;
	case 0xc0: case 0xc1:
		shift(t, false, (uint8_t)i->imm);
		return;
	case 0xd0: case 0xd1:
		shift(t, false, 1);
		return;
	case 0xd2: case 0xd3:
		shift(t, true, 0);
		return;
	case 0xc2: case 0xc3:
		if (is_64(t)) {
			emit_end(t, op == 0xc2 ? X86_OP_ret_i : X86_OP_ret)->imm = (uint16_t)i->imm;
		} else {
			o = emit_end(t, X86_OP_lg_ret);
			o->imm = (uint16_t)i->imm;
			o->idx = i->opsize;
		}
		return;
	case 0xc4: case 0xc5:
		if (i->mod == 3)
			break;
		o = emit_mem(t, X86_OP_lds);
		o->dst = SLOT(i->reg);
		o->src = op == 0xc4 ? X86_ES : X86_DS;
		o->idx = i->opsize;
		ends(t);
		return;
	case 0xc6: case 0xc7: {
		const unsigned sz = insn_size(t);
		if (i->reg & 7)
			break;
		if (i->mod == 3) {
			o = emit(t, X86_OP_mov_ri_b + sz);
			o->dst = slot_of(t, i->rm, sz);
		} else {
			o = emit_mem(t, X86_OP_mov_mi_b + sz);
		}
		o->imm = (int32_t)i->imm;
		return;
	}
	case 0xc8:
		o = emit(t, X86_OP_enter);
		o->imm = (int32_t)i->imm;
		o->idx = (uint8_t)stack_size(t);
		t->x->uses_flags = true;
		return;
	case 0xc9:
		o = emit(t, is_64(t) && stack_size(t) == 8 ? X86_OP_leave : X86_OP_lg_leave);
		o->idx = (uint8_t)stack_size(t);
		t->x->uses_flags = true;
		return;
	case 0xca: case 0xcb:
		o = emit_end(t, X86_OP_retf);
		o->imm = (uint16_t)i->imm;
		o->idx = i->opsize;
		return;
	case 0xcc: case 0xcd: case 0xf1:
		o = emit_end(t, X86_OP_int_n);
		o->imm = op == 0xcc ? X86_BP : op == 0xf1 ? X86_DB : (uint8_t)i->imm;
		o->idx = op == 0xf1;
		return;
	case 0xcf:
		emit_end(t, X86_OP_iret)->idx = i->opsize;
		return;
	case 0xd7:
		o = emit(t, X86_OP_xlat);
		o->src = (uint8_t)(i->seg != X86_NO_SEG ? i->seg : X86_DS);
		o->idx = i->addrsize;
		t->x->uses_flags = true;
		return;
	case 0xd8 ... 0xdf: {
		int32_t imm;
		unsigned h = (unsigned)x86_x87_select(i, &imm);
		o = i->mod == 3 ? emit(t, h) : emit_mem(t, h);
		o->imm = imm;
		t->x->uses_flags = true;
		return;
	}
	case 0xe0 ... 0xe3:
		o = emit(t, X86_OP_loop);
		o->dst = op & 3;
		o->src = i->addrsize;
		o->idx = i->opsize;
		o->imm = (int32_t)i->imm;
		ends(t);
		t->x->needs_next = is_64(t);
		return;
	case 0xe4 ... 0xe7: case 0xec ... 0xef:
		o = emit(t, op & 2 ? X86_OP_out : X86_OP_in);
		o->idx = (uint8_t)(op & 1 ? (i->opsize == 2 ? 2 : 4) : 1);
		o->src = op >= 0xec;
		o->imm = (uint8_t)i->imm;
		t->x->uses_flags = true;
		if (op & 2)
			ends(t);
		return;
	case 0xe8:
		jump_or_call(t, true);
		return;
	case 0xe9: case 0xeb:
		jump_or_call(t, false);
		return;
	case 0xf4:
		emit_end(t, X86_OP_hlt);
		return;
	case 0xf5:
		emit(t, X86_OP_cmc);
		t->x->uses_flags = true;
		return;
	case 0xf6: case 0xf7:
		group3(t);
		return;
	case 0xf8: case 0xf9:
		emit(t, op == 0xf8 ? X86_OP_clc : X86_OP_stc);
		t->x->uses_flags = true;
		return;
	case 0xfa: case 0xfb:
		emit(t, op == 0xfa ? X86_OP_cli : X86_OP_sti);
		t->x->uses_flags = true;
		return;
	case 0xfc: case 0xfd:
		emit(t, op == 0xfc ? X86_OP_cld : X86_OP_std);
		return;
	case 0xfe: case 0xff:
		group5(t);
		return;
	}
	undefined(t);
}

/* r/m operand as an integer source of a system instruction, 16 bits when in memory. */
static void system_source(struct ctx *t, unsigned h)
{
	uint8_t src = rm_source(t, 1);
	emit(t, h)->src = src;
	t->x->uses_flags = true;
}

/* A system register stored to r/m: memory forms are 16 bits. */
static void system_store(struct ctx *t, unsigned h)
{
	const struct x86_insn *i = t->i;
	struct x86_op *o;
	t->x->uses_flags = true;
	if (i->mod == 3) {
		o = emit(t, h);
		o->dst = SLOT(i->rm);
		o->idx = i->opsize;
		return;
	}
	struct addr a = address_of(t, false, true);
	o = emit(t, h);
	o->dst = SLOT_TMP;
	o->idx = 2;
	o = emit(t, X86_OP_mov_mr_w);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	o->src = SLOT_TMP;
}

static void group6(struct ctx *t)
{
	switch (t->i->reg & 7) {
	case 0: system_store(t, X86_OP_sldt); return;
	case 1: system_store(t, X86_OP_str); return;
	case 2: system_source(t, X86_OP_lldt); return;
	case 3: system_source(t, X86_OP_ltr); return;
	case 4: system_source(t, X86_OP_verr); return;
	case 5: system_source(t, X86_OP_verw); return;
	}
	undefined(t);
}

static void group7(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	const unsigned reg = i->reg & 7, rm = i->rm & 7;
	struct x86_op *o;
	t->x->uses_flags = true;
	if (i->mod != 3 && reg < 4) {
		static const uint16_t h[4] = {X86_OP_sgdt, X86_OP_sidt, X86_OP_lgdt, X86_OP_lidt};
		emit_mem(t, h[reg])->idx = i->opsize;
		return;
	}
	switch (reg) {
	case 0:
		if (rm == 1) {
			emit(t, X86_OP_vmcall);
			return;
		}
		break;
	case 1:
		if (rm == 2 || rm == 3) {
			emit(t, rm == 2 ? X86_OP_clac : X86_OP_stac);
			return;
		}
		break;
	case 3:
		if (rm == 1) { /* VMMCALL */
			emit(t, X86_OP_vmcall);
			return;
		}
		break;
	case 4:
		system_store(t, X86_OP_smsw);
		return;
	case 6:
		system_source(t, X86_OP_lmsw);
		ends(t);
		return;
	case 7:
		if (i->mod != 3) {
			o = emit_mem(t, X86_OP_invlpg);
			(void)o;
			ends(t);
			return;
		}
		if (rm == 0 && is_64(t)) {
			emit(t, X86_OP_swapgs);
			return;
		}
		if (rm == 1) {
			emit(t, X86_OP_rdtscp);
			return;
		}
		break;
	}
	undefined(t);
}

/* BT, BTS, BTR, BTC: which 0..3; the bit number in a register slot, or immediate. */
static void bit_test(struct ctx *t, unsigned which, bool by_imm)
{
	const struct x86_insn *i = t->i;
	const unsigned sz = size_index(i->opsize) - 1;
	struct x86_op *o;
	t->x->uses_flags = true;
	if (i->mod == 3) {
		o = emit(t, X86_OP_bt_rr_w + which * 3 + sz);
		o->dst = SLOT(i->rm);
	} else {
		const bool wraps = !by_imm && i->addrsize != 8;
		struct addr a = address_of(t, false, !wraps);
		if (!by_imm) {
			o = emit(t, X86_OP_ea_bit_w + sz);
			o->base = a.base;
			o->idx = a.idx;
			o->disp = a.disp;
			o->src = SLOT(i->reg);
			a = (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
		}
		if (wraps) { /* the bit offset is part of the effective address, which is cut to its size */
			o = emit(t, X86_OP_ea);
			o->base = SLOT_EA;
			o->idx = SLOT_ZERO;
			o->src = (uint8_t)segment(i);
			o->dst = i->addrsize == 4 ? 1 : 2;
		}
		if (which == 0) {
			o = emit(t, X86_OP_mov_rm_b + sz + 1);
			o->dst = SLOT_TMP;
		} else {
			o = emit(t, X86_OP_bts_m_w + (which - 1) * 3 + sz);
		}
		o->base = a.base;
		o->idx = a.idx;
		o->disp = a.disp;
		if (which == 0) {
			o = emit(t, X86_OP_bt_rr_w + sz);
			o->dst = SLOT_TMP;
		}
	}
	if (by_imm)
		o->imm = (int32_t)(i->imm & (i->opsize * 8 - 1));
	else
		o->src = SLOT(i->reg);
}

static void extend(struct ctx *t, bool sign)
{
	const struct x86_insn *i = t->i;
	const bool word = i->op & 1;
	unsigned h;
	struct x86_op *o;
	if (word && i->opsize == 2) { /* MOVZX r16, r/m16 is a move */
		uint8_t src = rm_source(t, 1);
		o = emit(t, X86_OP_mov_rr_w);
		o->dst = SLOT(i->reg);
		o->src = src;
		return;
	}
	if (!sign)
		h = word ? X86_OP_movzx_rr_wl : i->opsize == 2 ? X86_OP_movzx_rr_bw : X86_OP_movzx_rr_bl;
	else if (word)
		h = i->opsize == 8 ? X86_OP_movsx_rr_wq : X86_OP_movsx_rr_wl;
	else
		h = i->opsize == 8 ? X86_OP_movsx_rr_bq : i->opsize == 4 ? X86_OP_movsx_rr_bl : X86_OP_movsx_rr_bw;
	if (i->mod == 3) {
		o = emit(t, h);
		o->src = word ? SLOT(i->rm) : slot8(t, i->rm);
	} else if (!sign && h != X86_OP_movzx_rr_bw) {
		o = emit_mem_x(t, h + 3, (unsigned)(word ? X86_OP_movzx_rmx_wl : X86_OP_movzx_rmx_bl));
	} else {
		o = emit_mem(t, h + (sign ? 6 : 3));
	}
	o->dst = SLOT(i->reg);
}

static void vector(struct ctx *t, int row)
{
	const struct x86_insn *i = t->i;
	const struct x86_vec_row *r = &x86_vec_table[row];
	t->x->uses_flags = true;
	struct x86_op *o;
	if (i->mod == 3) {
		const unsigned h = (unsigned)x86_vec_select(i, row);
		uint8_t base = 0;
		if (h == X86_OP_maskmov) { /* the only one with an implicit address: [rDI] */
			o = emit(t, X86_OP_ea);
			o->base = SLOT(X86_RDI);
			o->idx = SLOT_ZERO;
			o->src = (uint8_t)segment(i);
			o->dst = i->addrsize == 8 ? 0 : i->addrsize == 4 ? 1 : 2;
			base = SLOT_EA;
		}
		o = emit(t, h);
		o->base = base;
	} else {
		struct addr a = address_of(t, true, true);
		if (a.indexed) {
			int h = x86_vec_select_indexed(i, row);
			if (h < 0) {
				o = emit(t, X86_OP_leax_q);
				o->dst = SLOT_EA;
				o->base = a.base;
				o->idx = a.idx;
				o->disp = a.disp;
				a = (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
				h = x86_vec_select(i, row);
			}
			o = emit(t, (unsigned)h);
		} else {
			o = emit(t, (unsigned)x86_vec_select(i, row));
		}
		o->base = a.base;
		o->idx = a.idx;
		o->disp = a.disp;
	}
	const bool to_rm = r->flags & X86_VF_MEM_DST;
	if (i->mod == 3) {
		o->dst = to_rm ? i->rm : i->reg;
		o->src = to_rm ? i->reg : i->rm;
	} else {
		o->dst = o->src = i->reg;
	}
	o->imm = (int32_t)((unsigned)row << 8 | (uint8_t)i->imm);
}

static void map_0f(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	struct x86_op *o;
	const uint8_t op = i->op;
	const unsigned sz = size_index(i->opsize);
	switch (op) {
	case 0x00: group6(t); return;
	case 0x01: group7(t); return;
	case 0x02: case 0x03: {
		uint8_t src = rm_source(t, 1);
		o = emit(t, op == 2 ? X86_OP_lar : X86_OP_lsl);
		o->dst = SLOT(i->reg);
		o->src = src;
		o->idx = i->opsize;
		t->x->uses_flags = true;
		return;
	}
	case 0x05:
		if (!is_64(t))
			break;
		emit_end(t, X86_OP_syscall);
		return;
	case 0x06:
		emit_end(t, X86_OP_clts);
		t->x->ends_block = false;
		return;
	case 0x07:
		emit_end(t, X86_OP_sysret)->idx = i->opsize;
		return;
	case 0x08: case 0x09:
		emit(t, X86_OP_invd);
		t->x->uses_flags = true;
		return;
	case 0x0d: case 0x18 ... 0x1f: /* prefetches and reserved NOPs touch nothing */
		emit(t, X86_OP_nop);
		return;
	case 0x20: case 0x21: case 0x22: case 0x23:
		o = emit(t, op == 0x20 ? X86_OP_mov_rcr : op == 0x21 ? X86_OP_mov_rdr : op == 0x22 ? X86_OP_mov_crr : X86_OP_mov_drr);
		o->dst = op & 2 ? i->reg : SLOT(i->rm);
		o->src = op & 2 ? SLOT(i->rm) : i->reg;
		t->x->uses_flags = true;
		if (op == 0x22)
			ends(t);
		return;
	case 0x30: emit_end(t, X86_OP_wrmsr); return;
	case 0x31: emit(t, X86_OP_rdtsc); t->x->uses_flags = true; return;
	case 0x32: emit(t, X86_OP_rdmsr); t->x->uses_flags = true; return;
	case 0x33: emit(t, X86_OP_rdpmc); t->x->uses_flags = true; return;
	case 0x34: emit_end(t, X86_OP_sysenter); return;
	case 0x35: emit_end(t, X86_OP_sysexit)->idx = i->opsize; return;
	case 0x40 ... 0x4f: {
		uint8_t src = rm_source(t, sz);
		if (i->opsize == 2) {
			o = emit(t, X86_OP_cmov_w);
			o->imm = op & 15;
		} else {
			o = emit(t, (i->opsize == 8 ? X86_OP_cmov_q_o : X86_OP_cmov_l_o) + (op & 15u));
		}
		o->dst = SLOT(i->reg);
		o->src = src;
		t->x->uses_flags = true;
		return;
	}
	case 0x80 ... 0x8f:
		conditional(t, op & 15u);
		return;
	case 0x90 ... 0x9f:
		t->x->uses_flags = true;
		if (i->mod == 3) {
			emit(t, X86_OP_set_o + (op & 15u))->dst = slot8(t, i->rm);
		} else {
			struct addr a = address_of(t, false, true);
			emit(t, X86_OP_set_o + (op & 15u))->dst = SLOT_TMP;
			o = emit(t, X86_OP_mov_mr_b);
			o->base = a.base;
			o->idx = a.idx;
			o->disp = a.disp;
			o->src = SLOT_TMP;
		}
		return;
	case 0xa0: case 0xa8:
		o = emit(t, X86_OP_push_seg);
		o->src = op == 0xa0 ? X86_FS : X86_GS;
		o->idx = (uint8_t)stack_size(t);
		t->x->uses_flags = true;
		return;
	case 0xa1: case 0xa9:
		o = emit_end(t, X86_OP_pop_seg);
		o->dst = op == 0xa1 ? X86_FS : X86_GS;
		o->idx = (uint8_t)stack_size(t);
		return;
	case 0xa2:
		emit(t, X86_OP_cpuid);
		t->x->uses_flags = true;
		return;
	case 0xa3: bit_test(t, 0, false); return;
	case 0xab: bit_test(t, 1, false); return;
	case 0xb3: bit_test(t, 2, false); return;
	case 0xbb: bit_test(t, 3, false); return;
	case 0xba:
		if ((i->reg & 7) < 4)
			break;
		bit_test(t, (i->reg & 3u), true);
		return;
	case 0xa4: case 0xa5: case 0xac: case 0xad: {
		const bool right = op & 8, mem = i->mod != 3;
		const unsigned h = (mem ? (right ? X86_OP_shrd_m_w : X86_OP_shld_m_w) : (right ? X86_OP_shrd_r_w : X86_OP_shld_r_w)) + sz - 1;
		if (mem) {
			struct addr a = address_of(t, false, true);
			o = emit(t, h);
			o->base = a.base;
			o->disp = a.disp;
		} else {
			o = emit(t, h);
			o->dst = SLOT(i->rm);
		}
		o->src = SLOT(i->reg);
		o->idx = op & 1;
		o->imm = (uint8_t)i->imm;
		t->x->uses_flags = true;
		return;
	}
	case 0xae: {
		const unsigned reg = i->reg & 7;
		t->x->uses_flags = true;
		if (i->p66 || i->rep || i->repne) /* CLWB, CLFLUSHOPT, WRFSBASE and so on, which the model lacks */
			break;
		if (i->mod == 3) {
			if (reg >= 5) { /* LFENCE, MFENCE, SFENCE */
				emit(t, reg == 6 ? X86_OP_mfence : X86_OP_nop);
				return;
			}
			break;
		}
		switch (reg) {
		case 0: case 1:
			emit_mem(t, reg ? X86_OP_fxrstor : X86_OP_fxsave)->idx = (i->rex & 8) ? 8 : 4;
			return;
		case 2: emit_mem(t, X86_OP_ldmxcsr); return;
		case 3: emit_mem(t, X86_OP_stmxcsr); return;
		case 7: /* CLFLUSH: checks the address like a load */
			emit_mem(t, X86_OP_mov_rm_b)->dst = SLOT_TMP;
			return;
		}
		break;
	}
	case 0xaf: {
		uint8_t src = rm_source(t, sz);
		o = emit(t, X86_OP_imul_rr_w + sz - 1);
		o->dst = SLOT(i->reg);
		o->src = src;
		t->x->sets_all_flags = i->mod == 3;
		return;
	}
	case 0xb0: case 0xb1: case 0xc0: case 0xc1: {
		const unsigned s = insn_size(t);
		const bool xadd = op >= 0xc0;
		t->x->uses_flags = true;
		if (i->mod == 3) {
			o = emit(t, (xadd ? X86_OP_xadd_r_b : X86_OP_cmpxchg_r_b) + s);
			o->dst = slot_of(t, i->rm, s);
		} else {
			o = emit_mem(t, (xadd ? X86_OP_xadd_m_b : X86_OP_cmpxchg_m_b) + s);
		}
		o->src = slot_of(t, i->reg, s);
		return;
	}
	case 0xb2: case 0xb4: case 0xb5:
		if (i->mod == 3)
			break;
		o = emit_mem(t, X86_OP_lds);
		o->dst = SLOT(i->reg);
		o->src = op == 0xb2 ? X86_SS : op == 0xb4 ? X86_FS : X86_GS;
		o->idx = i->opsize;
		ends(t);
		return;
	case 0xb6: case 0xb7: extend(t, false); return;
	case 0xbe: case 0xbf: extend(t, true); return;
	case 0xb8:
		if (!i->rep)
			break;
		/* fall through */
	case 0xbc: case 0xbd: {
		uint8_t src = rm_source(t, sz);
		o = emit(t, (op == 0xb8 ? X86_OP_popcnt_w : op == 0xbc ? X86_OP_bsf_w : X86_OP_bsr_w) + sz - 1);
		o->dst = SLOT(i->reg);
		o->src = src;
		t->x->uses_flags = true;
		return;
	}
	case 0xc7:
		t->x->uses_flags = true;
		if (i->mod == 3 || (i->reg & 7) != 1)
			break;
		emit_mem(t, i->rex & 8 ? X86_OP_cmpxchg16b : X86_OP_cmpxchg8b);
		return;
	case 0xc8 ... 0xcf:
		if (i->opsize == 2) { /* undefined; processors clear the register's low half */
			o = emit(t, X86_OP_mov_ri_w);
			o->dst = SLOT(opcode_reg(t));
			return;
		}
		o = emit(t, i->opsize == 8 ? X86_OP_bswap_q : X86_OP_bswap_l);
		o->dst = SLOT(opcode_reg(t));
		return;
	}
	undefined(t);
}

static void map_0f38(struct ctx *t)
{
	const struct x86_insn *i = t->i;
	if ((i->op == 0xf0 || i->op == 0xf1) && i->repne) {
		const unsigned sz = i->op == 0xf0 ? 0 : size_index(i->opsize);
		uint8_t src = rm_source(t, sz);
		struct x86_op *o = emit(t, X86_OP_crc32_b + sz);
		o->dst = SLOT(i->reg);
		o->src = src;
		return;
	}
	undefined(t);
}

/* LOCK is allowed on read-modify-write instructions with a memory destination only (SDM vol. 2 LOCK). */
static bool lock_allowed(const struct x86_insn *i)
{
	const unsigned reg = i->reg & 7;
	if (!i->has_modrm || i->mod == 3)
		return false;
	if (i->map == X86_MAP_1) {
		if (i->op < 0x38)
			return !(i->op & 6);
		switch (i->op) {
		case 0x80: case 0x81: case 0x82: case 0x83: return reg != 7;
		case 0x86: case 0x87: return true;
		case 0xf6: case 0xf7: return reg == 2 || reg == 3;
		case 0xfe: case 0xff: return reg < 2;
		}
		return false;
	}
	if (i->map != X86_MAP_0F)
		return false;
	switch (i->op) {
	case 0xab: case 0xb3: case 0xbb: case 0xb0: case 0xb1: case 0xc0: case 0xc1: return true;
	case 0xba: return reg >= 5;
	case 0xc7: return reg == 1;
	}
	return false;
}

void x86_translate_insn(const struct x86_insn *i, unsigned off, struct x86_op *op, struct x86_xlat *x)
{
	*x = (struct x86_xlat){.no_flags = -1};
	struct ctx t = {.i = i, .op = op, .x = x, .off = off, .ip = (uint16_t)(off | i->len << 12)};
	if (i->lock && !lock_allowed(i)) {
		undefined(&t);
		return;
	}
	if (i->map != X86_MAP_1) {
		int row = x86_vec_lookup(i);
		if (row >= 0) {
			vector(&t, row);
			return;
		}
	}
	switch (i->map) {
	case X86_MAP_1: map_1(&t); return;
	case X86_MAP_0F: map_0f(&t); return;
	case X86_MAP_0F38: map_0f38(&t); return;
	default: undefined(&t);
	}
}
