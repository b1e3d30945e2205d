/* SPDX-License-Identifier: Apache-2.0 */
/* Cases through the fast tier's handlers: one instruction as x86_step() does it, with the other table, and sequences as blocks. */
#ifndef TESTS_CPU_SOFT_FAST_H
#define TESTS_CPU_SOFT_FAST_H

#include "diff.h"
#include "x86/opcodes.h"
#include "x86/translate.h"

#define FAST_TIER 1

/* Runs code from c->rip on in blocks, as the software machine builds them, until an INT3 is next or something else leaves. page: its bytes. */
static inline enum x86_leave fast_blocks(struct x86_cpu *c, const uint8_t *page)
{
	static union {
		struct x86_block b;
		uint8_t bytes[sizeof(struct x86_block) + 512 * sizeof(struct x86_op)];
	} room;
	while ((c->rip & ~0xfffull) == CODE_PAGE && page[c->rip & 0xfff] != 0xcc) {
		unsigned n_insns, n_bytes;
		const unsigned n = x86_build_block(page, c->rip & 0xfff, c->mode, room.b.op, 512, &n_insns, &n_bytes);
		if (!n)
			return X86_LEAVE_ERROR;
		room.b.n_ops = (uint16_t)n;
		room.b.n_insns = (uint16_t)n_insns;
		room.b.mode = c->mode;
		c->block = &room.b;
		c->r[X86_R_PAGE] = CODE_PAGE;
		c->icount += n_insns;
		const struct x86_op *u = room.b.op;
		while (u)
			u = x86_fast_table[u->h](c, u, x86_fast_table);
		c->block = NULL;
		c->smc = 0;
		if (c->leave == X86_LEAVE_EXCEPTION && c->exc.vector == X86_BP && c->exc.soft) {
			c->rip--; /* the INT3 behind the sequence */
			return X86_LEAVE_STEP;
		}
		if (c->leave != X86_LEAVE_LOOKUP)
			return c->leave;
	}
	return X86_LEAVE_STEP;
}

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
