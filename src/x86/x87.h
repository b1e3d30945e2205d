/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87 instructions (SDM vol. 1 chapter 8) on the host's x87.
 *
 * Every x87 instruction that is no control instruction sets FIP to its linear address and FDP to its linear memory operand if it has
 * one; FOP is set to the opcode when an unmasked exception becomes pending (SDM vol. 1 section 8.1.9.1). FCS and FDS read as zero.
 *
 * All functions run inside guest code (fp.h), on the CPU's thread; false: fault in c->exc, nothing changed.
 */
#ifndef X86_X87_H
#define X86_X87_H

#include "x86/cpu.h"
#include "x86/insn.h"

/* Bit 16 of an operation's imm: the 16-bit layout of FSTENV and FSAVE (an operand size of 2). */
#define X86_X87_ENV16 0x10000

/* The operation (enum x86_opcode) for an instruction with opcode D8..DF, and its imm: opcode << 8 | ModRM (and X86_X87_ENV16). A memory
 * operand's address is base + disp (EA0). */
int x86_x87_select(const struct x86_insn *i, int32_t *imm);

bool x86_x87_reg(struct x86_cpu *c, unsigned imm, uint64_t rip);
bool x86_x87_mem(struct x86_cpu *c, unsigned imm, uint64_t rip, uint64_t ea);
bool x86_fwait(struct x86_cpu *c);
/* wide: REX.W, 64-bit FIP and FDP. */
bool x86_fxsave(struct x86_cpu *c, uint64_t ea, bool wide);
bool x86_fxrstor(struct x86_cpu *c, uint64_t ea, bool wide);

/* FNSTENV, FNSAVE and their loads, for x86_x87_mem(). save: the registers as well. */
bool x86_x87_store_env(struct x86_cpu *c, uint64_t ea, bool env16, bool save);
bool x86_x87_load_env(struct x86_cpu *c, uint64_t ea, bool env16, bool save);

#endif
