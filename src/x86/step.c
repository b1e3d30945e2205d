/* SPDX-License-Identifier: Apache-2.0 */
/* Between the tiers and out of them: the fast tier's way into the slow one, leaving on faults, and executing a single instruction. */
#include "x86/op.h"
#include "x86/opcodes.h"
#include "x86/translate.h"

/* Only instructions that start at or behind u in this block: the operations of one instruction share their `ip`. */
void x86_uncount(struct x86_cpu *c, const struct x86_op *u)
{
	const struct x86_block *b = c->block;
	if (!b || u < b->op)
		return;
	const struct x86_op *end = b->op + b->n_ops;
	unsigned n = 0;
	for (const struct x86_op *o = u; o < end; o++) {
		/* The jump that closes a block stands for no instruction: its length is 0, as is no real one's. */
		if (X86_IP_LEN(o) && (o == b->op || o[-1].ip != o->ip || o == u))
			n++;
	}
	c->icount -= n;
}

/* Whether the instruction at linear address la accesses memory at `address` through SS: what is not canonical is then #SS(0), not #GP(0)
 * (SDM vol. 1 section 3.3.7.1). Operations do not carry this, so the instruction is decoded again. */
static bool accesses_stack(struct x86_cpu *c, uint64_t la, uint64_t address)
{
	const struct x86_exception e = c->exc;
	uint8_t code[X86_MAX_LEN];
	unsigned n;
	struct x86_insn i;
	const bool decoded = x86_fetch(c, la, code, sizeof(code), &n) && x86_decode(code, n, c->mode, &i) == X86_DECODE_OK;
	c->exc = e;
	if (!decoded)
		return false;
	if (i.map == X86_MAP_1) {
		switch (i.op) {
		case 0x50 ... 0x5f: case 0x68: case 0x6a: case 0x9c: case 0x9d: case 0xc2: case 0xc3: case 0xc8: case 0xc9:
		case 0xca: case 0xcb: case 0xcf: case 0xe8:
			return true;
		case 0x8f: case 0xff: /* the stack or the other operand? */
			if (address - c->r[X86_RSP] + 16 < 32)
				return true;
			break;
		}
	}
	return i.has_modrm && i.mod != 3 && (i.seg == X86_SS || (i.seg == X86_NO_SEG && i.stack_seg));
}

const struct x86_op *x86_fault(struct x86_cpu *c, const struct x86_op *u)
{
	if (c->exc.noncanonical && accesses_stack(c, X86_RIP(c, u), c->exc.cr2))
		c->exc.vector = X86_SS_FAULT;
	x86_uncount(c, u);
	c->rip = X86_RIP(c, u) - c->segbase[X86_CS];
	if (c->mode != X86_MODE_64)
		c->rip = (uint32_t)c->rip;
	c->leave = X86_LEAVE_EXCEPTION;
	return NULL;
}

const struct x86_op *x86_unlinked(struct x86_cpu *c, const struct x86_op *j)
{
	c->rip = c->r[X86_R_PAGE] + (uint64_t)(int64_t)j->imm;
	c->link_op = (struct x86_op *)(uintptr_t)j;
	c->leave = X86_LEAVE_LOOKUP;
	return NULL;
}

const struct x86_op *x86_go_slow(struct x86_cpu *c, const struct x86_op *u, const void *table)
{
	c->stat_slow++;
	const struct x86_op *n = x86_slow_table[u->h](c, u, x86_slow_table);
	if (unlikely(c->smc)) {
		/* The block may be stale from here on. */
		c->smc = 0;
		if (n) {
			x86_uncount(c, n);
			c->rip = X86_RIP(c, n) - c->segbase[X86_CS];
			c->leave = X86_LEAVE_LOOKUP;
			return NULL;
		}
	}
	if (!n)
		return NULL;
#if X86_THREADED
	return ((x86_handler *const *)table)[n->h](c, n, table);
#else
	return n;
#endif
}

enum x86_leave x86_step(struct x86_cpu *c)
{
	const uint64_t la = c->mode == X86_MODE_64 ? c->rip : (uint32_t)(c->segbase[X86_CS] + c->rip);
	uint8_t code[X86_MAX_LEN];
	unsigned n;
	struct x86_insn i;
	c->block = NULL;
	if (!x86_fetch(c, la, code, sizeof(code), &n))
		return c->leave = X86_LEAVE_EXCEPTION;
	switch (x86_decode(code, n, c->mode, &i)) {
	case X86_DECODE_OK:
		break;
	case X86_DECODE_MORE: /* x86_fetch has left the fault of the second page */
		return c->leave = X86_LEAVE_EXCEPTION;
	case X86_DECODE_TOO_LONG:
		x86_raise(c, X86_GP, 0);
		return c->leave = X86_LEAVE_EXCEPTION;
	case X86_DECODE_UD:
		x86_raise_noerr(c, X86_UD);
		return c->leave = X86_LEAVE_EXCEPTION;
	}
	const unsigned off = la & (MEM_PAGE_SIZE - 1);
	struct x86_op op[X86_MAX_OPS_PER_INSN + 1];
	struct x86_xlat x;
	x86_translate_insn(&i, off, op, &x);
	op[x.n_ops] = (struct x86_op){.h = X86_OP_end, .ip = (uint16_t)((off + i.len) & 0xfff), .imm = (int32_t)(off + i.len)};
	c->r[X86_R_PAGE] = la & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const struct x86_op *u = op;
	while (u)
		u = x86_slow_table[u->h](c, u, x86_slow_table);
	c->smc = 0;
	c->icount++;
	if (c->leave == X86_LEAVE_LOOKUP)
		c->leave = X86_LEAVE_STEP;
	return c->leave;
}
