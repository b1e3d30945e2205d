/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one function an opcode map picks the operations for an instruction and fills their fields (translate_1.c,
 * translate_0f.c); vector instructions come from a table (vec.h). This file decides which, and refuses LOCK where it may not be.
 */
#include "x86/translate_emit.h"

#include "x86/vec.h"

static void vector(struct xlat *t, int row)
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
	struct xlat t = {.i = i, .op = op, .x = x, .off = off, .ip = (uint16_t)(off | i->len << 12)};
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
	case X86_MAP_1: xlat_map_1(&t); return;
	case X86_MAP_0F: xlat_map_0f(&t); return;
	case X86_MAP_0F38: xlat_map_0f38(&t); return;
	default: undefined(&t);
	}
}
