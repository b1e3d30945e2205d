/* SPDX-License-Identifier: Apache-2.0 */
/* One instruction through the fast tier's handlers: what x86_step() does, with the other table. */
#ifndef TESTS_CPU_SOFT_FAST_H
#define TESTS_CPU_SOFT_FAST_H

#include "x86/opcodes.h"
#include "x86/translate.h"

#define FAST_TIER 1

static inline enum x86_leave fast_step(struct x86_cpu *c)
{
	uint8_t code[X86_MAX_LEN];
	unsigned n;
	struct x86_insn i;
	c->block = NULL;
	if (!x86_fetch(c, c->rip, code, sizeof(code), &n) || x86_decode(code, n, c->mode, &i) != X86_DECODE_OK)
		return x86_step(c);
	const unsigned off = c->rip & (MEM_PAGE_SIZE - 1);
	struct x86_op op[X86_MAX_OPS_PER_INSN + 1];
	struct x86_xlat x;
	x86_translate_insn(&i, off, op, &x);
	op[x.n_ops] = (struct x86_op){.h = X86_OP_end, .ip = (uint16_t)((off + i.len) & 0xfff), .imm = (int32_t)(off + i.len)};
	c->r[X86_R_PAGE] = c->rip & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const struct x86_op *u = op;
	while (u)
		u = x86_fast_table[u->h](c, u, x86_fast_table);
	c->smc = 0;
	if (c->leave == X86_LEAVE_LOOKUP)
		c->leave = X86_LEAVE_STEP;
	return c->leave;
}

#endif
