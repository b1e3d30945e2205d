/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to translate*.c: emitting the operations of one instruction.
 *
 * Where a form has no handler of its own it is put together from others: an address-prefix operation computes odd addresses into slot EA, a
 * load brings a rarely used memory operand into slot TMP first, a store takes a result from there. All operations of an instruction
 * carry its `ip`, and only the last one changes anything a program can see.
 */
#ifndef X86_TRANSLATE_EMIT_H
#define X86_TRANSLATE_EMIT_H

#include "x86/opcodes.h"
#include "x86/translate.h"

#define SLOT(r) ((uint8_t)((r) * 8))
#define SLOT_ZERO SLOT(X86_R_ZERO)
#define SLOT_EA   SLOT(X86_R_EA)
#define SLOT_TMP  SLOT(X86_R_TMP)

struct xlat {
	const struct x86_insn *i;
	struct x86_op *op;
	struct x86_xlat *x;
	uint16_t ip;
	unsigned off;
};

static inline struct x86_op *emit(struct xlat *t, unsigned h)
{
	struct x86_op *o = &t->op[t->x->n_ops++];
	*o = (struct x86_op){.h = (uint16_t)h, .ip = t->ip, .dst = SLOT_ZERO, .src = SLOT_ZERO, .base = SLOT_ZERO, .idx = SLOT_ZERO};
	return o;
}

static inline void undefined(struct xlat *t)
{
	t->x->n_ops = 0;
	emit(t, X86_OP_ud);
	t->x->ends_block = true;
	t->x->uses_flags = true;
}

/* Byte registers 4 to 7 are AH CH DH BH unless there is a REX prefix. */
static inline uint8_t slot8(const struct xlat *t, unsigned r)
{
	return !t->i->rex && r >= 4 && r < 8 ? (uint8_t)((r - 4) * 8 + 1) : SLOT(r);
}
static inline uint8_t slot_of(const struct xlat *t, unsigned r, unsigned sz)
{
	return sz == 0 ? slot8(t, r) : SLOT(r);
}
/* 0 1 2 3 for operand sizes 1 2 4 8. */
static inline unsigned size_index(unsigned bytes)
{
	return bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
}
/* Size index of an instruction whose even opcode is the byte form. */
static inline unsigned insn_size(const struct xlat *t)
{
	return t->i->op & 1 ? size_index(t->i->opsize) : 0;
}

static inline unsigned segment(const struct x86_insn *i)
{
	return i->seg != X86_NO_SEG ? i->seg : i->mode == X86_MODE_64 ? X86_NO_SEG : i->stack_seg ? X86_SS : X86_DS;
}

/* Where an operation finds its memory operand. */
struct addr {
	uint8_t base, idx;
	int32_t disp;
	bool indexed;
};

/* The address of the memory operand; emits an address-prefix operation unless it is base + disp (or, with may_index, base + index * scale +
 * disp) in 64-bit mode without a segment. with_segment false: LEA. */
static inline struct addr address_of(struct xlat *t, bool may_index, bool with_segment)
{
	const struct x86_insn *i = t->i;
	const unsigned seg = with_segment ? segment(i) : X86_NO_SEG;
	const bool plain = i->addrsize == 8 && seg == X86_NO_SEG;
	int64_t disp = i->disp;
	if (i->base == X86_RIP_REG) {
		/* The slot holds the page, so the offset of the next instruction goes into the displacement. */
		disp += t->off + i->len;
		if (disp != (int32_t)disp || (i->addrsize != 8)) {
			struct x86_op *o = emit(t, X86_OP_ea_rip);
			o->src = (uint8_t)seg;
			o->disp = i->disp;
			o->imm = (int32_t)(t->off + i->len);
			o->dst = i->addrsize == 8 ? 0 : 1;
			return (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
		}
	}
	const uint8_t base = SLOT(i->base), idx = (uint8_t)(SLOT(i->index) | i->scale);
	const bool has_index = i->index != X86_NO_REG;
	if (plain && (!has_index || may_index))
		return (struct addr){.base = base, .idx = idx, .disp = (int32_t)disp, .indexed = has_index};
	struct x86_op *o = emit(t, i->addrsize == 8 && i->mode == X86_MODE_64 ? X86_OP_ea_seg : X86_OP_ea);
	o->base = base;
	o->idx = idx;
	o->disp = (int32_t)disp;
	o->src = (uint8_t)seg;
	o->dst = i->addrsize == 8 ? 0 : i->addrsize == 4 ? 1 : 2;
	return (struct addr){.base = SLOT_EA, .idx = SLOT_ZERO};
}

/* Emits an operation on the memory operand. */
static inline struct x86_op *emit_mem(struct xlat *t, unsigned h)
{
	struct addr a = address_of(t, false, true);
	struct x86_op *o = emit(t, h);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	t->x->uses_flags = true;
	return o;
}

/* As emit_mem, with a second handler for indexed addresses. */
static inline struct x86_op *emit_mem_x(struct xlat *t, unsigned h, unsigned h_indexed)
{
	struct addr a = address_of(t, true, true);
	struct x86_op *o = emit(t, a.indexed ? h_indexed : h);
	o->base = a.base;
	o->idx = a.idx;
	o->disp = a.disp;
	t->x->uses_flags = true;
	return o;
}

/* The slot where the r/m operand can be read: its register, or TMP after a load. */
static inline uint8_t rm_source(struct xlat *t, unsigned sz)
{
	const struct x86_insn *i = t->i;
	if (i->mod == 3)
		return slot_of(t, i->rm, sz);
	struct x86_op *o = emit_mem_x(t, X86_OP_mov_rm_b + sz, X86_OP_mov_rmx_b + sz);
	o->dst = SLOT_TMP;
	return SLOT_TMP;
}

/* Ends the block after an instruction that leaves it through the run loop. */
static inline void ends(struct xlat *t)
{
	t->x->ends_block = true;
	t->x->uses_flags = true;
}

static inline struct x86_op *emit_end(struct xlat *t, unsigned h)
{
	ends(t);
	return emit(t, h);
}

static inline bool is_64(const struct xlat *t)
{
	return t->i->mode == X86_MODE_64;
}

/* Stack operand size: 8 by default in 64-bit mode (2 with a 66 prefix). */
static inline unsigned stack_size(const struct xlat *t)
{
	return !is_64(t) ? t->i->opsize : t->i->p66 && !(t->i->rex & 8) ? 2 : 8;
}

/* Register slot in the low bits of the opcode, with REX.B. */
static inline unsigned opcode_reg(const struct xlat *t)
{
	return (t->i->op & 7u) | (t->i->rex & 1u) << 3;
}

/* translate_flow.c: branches and the stack. */
void xlat_conditional(struct xlat *t, unsigned cc);
void xlat_jump_or_call(struct xlat *t, bool call);
void xlat_push_slot(struct xlat *t, uint8_t slot, int32_t imm, bool is_imm);
void xlat_pop_slot(struct xlat *t, uint8_t slot);

/* One function an opcode map: translate_1.c, translate_0f.c. */
void xlat_map_1(struct xlat *t);
void xlat_map_0f(struct xlat *t);
void xlat_map_0f38(struct xlat *t);

#endif
