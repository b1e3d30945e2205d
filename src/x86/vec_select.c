/* SPDX-License-Identifier: Apache-2.0 */
/* Which operation runs a vector instruction best. */
#include "x86/opcodes.h"
#include "x86/vec.h"

static bool only_xmm(const struct x86_vec_row *row)
{
	return row->reg == X86_VK_XMM && row->rm == X86_VK_XMM;
}

int x86_vec_select(const struct x86_insn *i, int n)
{
	const struct x86_vec_row *row = &x86_vec_table[n];
	const bool mm = row->reg == X86_VK_MM || row->rm == X86_VK_MM;
	if (i->map == X86_MAP_0F) {
		switch (i->op) {
		case 0x77:
			return X86_OP_emms;
		case 0xae:
			return row->flags & X86_VF_MEM_DST ? X86_OP_stmxcsr : X86_OP_ldmxcsr;
		case 0xf7:
			return X86_OP_maskmov;
		}
	}
	if (i->mod == 3)
		return mm ? X86_OP_vec_mm_rr : only_xmm(row) ? X86_OP_vec_xx : X86_OP_vec_rr;
	if (row->flags & X86_VF_MEM_DST)
		return mm ? X86_OP_vec_mm_mr : row->reg == X86_VK_XMM ? X86_OP_vec_mx : X86_OP_vec_mr;
	return mm ? X86_OP_vec_mm_rm : row->reg == X86_VK_XMM ? X86_OP_vec_xm : X86_OP_vec_rm;
}

int x86_vec_select_indexed(const struct x86_insn *i, int n)
{
	switch (x86_vec_select(i, n)) {
	case X86_OP_vec_xm:
		return X86_OP_vec_xmi;
	case X86_OP_vec_mx:
		return X86_OP_vec_mxi;
	default:
		return -1;
	}
}
