/* SPDX-License-Identifier: Apache-2.0 */
/* The two-byte opcode map (SDM vol. 2 table A-3) and the integer part of map 0F38 into operations. */
#include "x86/translate_emit.h"

/* r/m operand as an integer source of a system instruction, 16 bits when in memory. */
static void system_source(struct xlat *t, unsigned h)
{
	uint8_t src = rm_source(t, 1);
	emit(t, h)->src = src;
	t->x->uses_flags = true;
}

/* A system register stored to r/m: memory forms are 16 bits. */
static void system_store(struct xlat *t, unsigned h)
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

static void group6(struct xlat *t)
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

static void group7(struct xlat *t)
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
static void bit_test(struct xlat *t, unsigned which, bool by_imm)
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

static void extend(struct xlat *t, bool sign)
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

void xlat_map_0f(struct xlat *t)
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
		xlat_conditional(t, op & 15u);
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

void xlat_map_0f38(struct xlat *t)
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
