/* SPDX-License-Identifier: Apache-2.0 */
/* Which operation runs a vector instruction best: its own (vec_hot.def) or the general one for its operands. */
#include "x86/opcodes.h"
#include "x86/vec.h"

enum {
#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags) VEC_##id,
#define MORE ROW
#include "x86/vec_rows.def"
	VEC_ROWS
};

/* Operations by row; 0 (X86_OP_end, which no row has) where there is none. */
struct hot {
	uint16_t reg, mem, mem_indexed;
};
static const struct hot hot[VEC_ROWS] = {
#define HOT_BIN(row)           [VEC_##row].reg = X86_OP_vh_##row##_xx, [VEC_##row].mem = X86_OP_vh_##row##_xm,
#define HOT_SCALAR(row, T)     HOT_BIN(row)[VEC_##row].mem_indexed = X86_OP_vh_##row##_xmi,
#define HOT_CONVERT(row, D, S) HOT_BIN(row)
#define HOT_COMPARE(row, T)    HOT_BIN(row)
#define HOT_LOAD(row, name)    [VEC_##row].mem = X86_OP_vh_##name##_xm, [VEC_##row].mem_indexed = X86_OP_vh_##name##_xmi,
#define HOT_STORE(row, name)   [VEC_##row].mem = X86_OP_vh_##name##_mx, [VEC_##row].mem_indexed = X86_OP_vh_##name##_mxi,
#define HOT_REG(row, name)     [VEC_##row].reg = X86_OP_vh_##name,
#include "x86/vec_hot.def"
};

int x86_vec_select(const struct x86_insn *i, int n)
{
	const struct x86_vec_row *row = &x86_vec_table[n];
	const bool mm = row->reg == X86_VK_MM || row->rm == X86_VK_MM;
	const bool only_xmm = row->reg == X86_VK_XMM && row->rm == X86_VK_XMM;
	switch (n) {
	case VEC_emms:
		return X86_OP_emms;
	case VEC_ldmxcsr:
		return X86_OP_ldmxcsr;
	case VEC_stmxcsr:
		return X86_OP_stmxcsr;
	case VEC_maskmovq:
	case VEC_maskmovdqu:
		return X86_OP_maskmov;
	}
	if (i->mod == 3)
		return hot[n].reg ? hot[n].reg : mm ? X86_OP_vec_mm_rr : only_xmm ? X86_OP_vec_xx : X86_OP_vec_rr;
	if (hot[n].mem)
		return hot[n].mem;
	if (row->flags & X86_VF_MEM_DST)
		return mm ? X86_OP_vec_mm_mr : row->reg == X86_VK_XMM ? X86_OP_vec_mx : X86_OP_vec_mr;
	return mm ? X86_OP_vec_mm_rm : row->reg == X86_VK_XMM ? X86_OP_vec_xm : X86_OP_vec_rm;
}

int x86_vec_select_indexed(const struct x86_insn *i, int n)
{
	if (hot[n].mem_indexed)
		return hot[n].mem_indexed;
	if (hot[n].mem)
		return -1;
	switch (x86_vec_select(i, n)) {
	case X86_OP_vec_xm:
		return X86_OP_vec_xmi;
	case X86_OP_vec_mx:
		return X86_OP_vec_mxi;
	default:
		return -1;
	}
}
