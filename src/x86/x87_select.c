/* SPDX-License-Identifier: Apache-2.0 */
/* Which operation runs an x87 instruction best. */
#include "x86/opcodes.h"
#include "x86/x87.h"

/* Memory forms with a quick handler, by opcode and ModRM.reg. */
static int select_mem(unsigned op, unsigned reg)
{
	switch (op << 4 | reg) {
	case 0xd90:
		return X86_OP_x87_fld_m32;
	case 0xd92:
		return X86_OP_x87_fst_m32;
	case 0xd93:
		return X86_OP_x87_fstp_m32;
	case 0xd95:
		return X86_OP_x87_fldcw;
	case 0xd97:
		return X86_OP_x87_fnstcw;
	case 0xdb0:
		return X86_OP_x87_fild_m32;
	case 0xdb1:
		return X86_OP_x87_fisttp_m32;
	case 0xdb2:
		return X86_OP_x87_fist_m32;
	case 0xdb3:
		return X86_OP_x87_fistp_m32;
	case 0xdb5:
		return X86_OP_x87_fld_m80;
	case 0xdb7:
		return X86_OP_x87_fstp_m80;
	case 0xdd0:
		return X86_OP_x87_fld_m64;
	case 0xdd1:
		return X86_OP_x87_fisttp_m64;
	case 0xdd2:
		return X86_OP_x87_fst_m64;
	case 0xdd3:
		return X86_OP_x87_fstp_m64;
	case 0xdf0:
		return X86_OP_x87_fild_m16;
	case 0xdf1:
		return X86_OP_x87_fisttp_m16;
	case 0xdf3:
		return X86_OP_x87_fistp_m16;
	case 0xdf5:
		return X86_OP_x87_fild_m64;
	case 0xdf7:
		return X86_OP_x87_fistp_m64;
	}
	if ((op == 0xd8 || op == 0xdc) && reg != 2 && reg != 3)
		return op == 0xd8 ? X86_OP_x87_arith_m32 : X86_OP_x87_arith_m64;
	return X86_OP_x87_m;
}

static int select_reg(unsigned op, unsigned modrm)
{
	const unsigned reg = modrm >> 3 & 7;
	switch (op << 8 | modrm) {
	case 0xd9e0:
		return X86_OP_x87_fchs;
	case 0xd9e1:
		return X86_OP_x87_fabs;
	case 0xd9e8:
		return X86_OP_x87_fld1;
	case 0xd9ee:
		return X86_OP_x87_fldz;
	case 0xd9fa:
		return X86_OP_x87_fsqrt;
	case 0xd9fc:
		return X86_OP_x87_frndint;
	case 0xdfe0:
		return X86_OP_x87_fnstsw;
	}
	switch (op << 4 | reg) {
	case 0xd90:
		return X86_OP_x87_fld_st;
	case 0xd91:
		return X86_OP_x87_fxch;
	case 0xdd2:
		return X86_OP_x87_fst_st;
	case 0xdd3:
		return X86_OP_x87_fstp_st;
	case 0xdb5:
	case 0xdf5:
		return X86_OP_x87_fucomi;
	case 0xdb6:
	case 0xdf6:
		return X86_OP_x87_fcomi;
	}
	if (reg != 2 && reg != 3)
		switch (op) {
		case 0xd8:
			return X86_OP_x87_arith_st0;
		case 0xdc:
			return X86_OP_x87_arith_sti;
		case 0xde:
			return X86_OP_x87_arith_pop;
		}
	return X86_OP_x87_r;
}

int x86_x87_select(const struct x86_insn *i, int32_t *imm)
{
	const unsigned modrm = i->mod << 6 | (i->reg & 7u) << 3 | (i->rm & 7u);
	*imm = (int32_t)(i->op << 8 | modrm | (i->opsize == 2 ? X86_X87_ENV16 : 0));
	return i->mod == 3 ? select_reg(i->op, modrm) : select_mem(i->op, i->reg & 7u);
}
