/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector (MMX, SSE .. SSE4.2) and x87 instructions: one table row an instruction form, executed by the host's own units.
 *
 * The decoder asks x86_vec_lookup() for the row of an instruction; the operation it emits carries the row's number and the immediate
 * in `imm` (row << 8 | imm8), register numbers in dst and src, and, for memory forms, the address. Handlers fetch operands (memory through
 * the bounce buffer) and call the row's function. x87 instructions go through x86_x87_*() in the same way.
 */
#ifndef X86_VEC_H
#define X86_VEC_H

#include "x86/cpu.h"
#include "x86/insn.h"

/* dst and src point into struct x86_cpu (a register) or at a bounce buffer (memory); imm8 zero-extended. Where the instruction also
 * writes arithmetic flags (COMISS, PTEST, PCMPxSTRx) or implicit registers, the function does so through c. */
typedef void x86_vec_fn(struct x86_cpu *c, void *dst, const void *src, unsigned imm);

enum x86_vec_kind {
	X86_VK_NONE,
	X86_VK_XMM, /* XMM register */
	X86_VK_MM,  /* MMX register: enters MMX state (TOP = 0, all tags valid, exponent all ones on write) */
	X86_VK_R32, /* general register; a 32-bit result zero-extends */
	X86_VK_R64,
};

#define X86_VF_FP      0x01u /* can raise SIMD floating-point exceptions */
#define X86_VF_ALIGNED 0x02u /* a 16-byte memory operand must be aligned (#GP(0)) */
#define X86_VF_MEM_DST 0x04u /* the memory operand (or r/m register) is the destination: the store forms */
#define X86_VF_DST_IN  0x08u /* the old destination is an input, or part of it is kept */
#define X86_VF_MEM_ONLY 0x10u /* no register form: #UD */
#define X86_VF_REG_ONLY 0x20u /* no memory form: #UD */
#define X86_VF_IMM     0x40u

struct x86_vec_row {
	const char *name;
	x86_vec_fn *fn;
	uint8_t reg;       /* enum x86_vec_kind of ModRM.reg's operand */
	uint8_t rm;        /* enum x86_vec_kind of ModRM.rm's operand when it is a register */
	uint8_t mem_bytes; /* size of the operand in memory */
	uint8_t flags;
};
extern const struct x86_vec_row x86_vec_table[];
extern const unsigned x86_vec_rows;

/* Row for an instruction of maps 0F, 0F38, 0F3A, or -1 when it is no vector instruction (the integer decoder then looks at it, and
 * raises #UD if it does not know it either). Depends on prefixes (66, F3, F2), opcode, ModRM.mod, ModRM.reg for groups, REX.W. */
int x86_vec_lookup(const struct x86_insn *i);

/* The operation (enum x86_opcode) that runs the instruction i of row `row`. Fill in imm = row << 8 | imm8 and register
 * numbers: register forms have dst = ModRM.rm, src = ModRM.reg when the row has X86_VF_MEM_DST, else dst = ModRM.reg, src = ModRM.rm; loads have dst =
 * ModRM.reg; stores src = ModRM.reg. The address is base + disp (EA0). X86_OP_maskmov is a register form whose base must
 * also be set, to rDI in DS or the overriding segment. */
int x86_vec_select(const struct x86_insn *i, int row);
/* The operation that takes an address with an index as well (EA1), or -1 where there is none. Memory forms only. */
int x86_vec_select_indexed(const struct x86_insn *i, int row);

#endif
