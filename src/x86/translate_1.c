/* SPDX-License-Identifier: Apache-2.0 */
/* The one-byte opcode map (SDM vol. 2 table A-2) into operations. */
#include "x86/translate_emit.h"

#include "x86/x87.h"

/* ALU families: enumerators of add_rr_b, or_rr_b, ... with 6 forms of 6 each (5 forms for cmp and test of 4). */
static const uint16_t alu_base[8] = {X86_OP_add_rr_b, X86_OP_or_rr_b, X86_OP_adc_rr_b, X86_OP_sbb_rr_b,
				     X86_OP_and_rr_b, X86_OP_sub_rr_b, X86_OP_xor_rr_b, X86_OP_cmp_rr_b};
static const uint16_t lock_base[8] = {X86_OP_lock_add_b, X86_OP_lock_or_b, X86_OP_lock_adc_b, X86_OP_lock_sbb_b,
				      X86_OP_lock_and_b, X86_OP_lock_sub_b, X86_OP_lock_xor_b, 0};
enum alu_form { RR, RI, RM, MR, MI };
#define ALU_CMP 7

static void note_flags(struct xlat *t, bool takes_carry, bool has_nf)
{
	t->x->sets_all_flags = !takes_carry;
	if (takes_carry)
		t->x->uses_flags = true;
	if (has_nf) {
		t->x->no_flags = (int16_t)(t->x->n_ops - 1);
		t->x->no_flags_by = 2;
	}
}

static struct x86_op *alu(struct xlat *t, unsigned which, enum alu_form form, unsigned sz)
{
	const bool cmp = which == ALU_CMP;
	const unsigned h = alu_base[which] + (unsigned)form * (cmp ? 4 : 6) + sz;
	struct x86_op *o = form >= RM ? emit_mem(t, h) : emit(t, h);
	note_flags(t, which == 2 || which == 3, !cmp && sz >= 2);
	return o;
}

static void locked_alu(struct xlat *t, unsigned which, unsigned sz, bool imm, int32_t value, uint8_t src)
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

static void string_op(struct xlat *t, unsigned h)
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

static void shift(struct xlat *t, bool by_cl, int32_t count)
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

static void group3(struct xlat *t)
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

static void group5(struct xlat *t)
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
			xlat_push_slot(t, SLOT(i->rm), 0, false);
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

static void mov_immediate(struct xlat *t, unsigned r, unsigned sz, int64_t imm)
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

static void alu_opcode(struct xlat *t)
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

void xlat_map_1(struct xlat *t)
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
		xlat_push_slot(t, SLOT(opcode_reg(t)), 0, false);
		return;
	case 0x58 ... 0x5f:
		xlat_pop_slot(t, SLOT(opcode_reg(t)));
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
		xlat_push_slot(t, SLOT_ZERO, (int32_t)i->imm, true);
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
		xlat_conditional(t, op & 15u);
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
			xlat_pop_slot(t, SLOT(i->rm));
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
		xlat_jump_or_call(t, true);
		return;
	case 0xe9: case 0xeb:
		xlat_jump_or_call(t, false);
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
