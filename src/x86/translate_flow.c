/* SPDX-License-Identifier: Apache-2.0 */
/* Branches and stack instructions into operations; 16- and 32-bit modes have forms of their own. */
#include "x86/translate_emit.h"

/* Jump to another page goes by address; within the page by a link. */
static bool same_page(const struct xlat *t, int64_t rel, int32_t *target)
{
	int64_t at = (int64_t)t->off + t->i->len + rel;
	*target = (int32_t)at;
	return at >= 0 && at < (int64_t)MEM_PAGE_SIZE;
}

void xlat_conditional(struct xlat *t, unsigned cc)
{
	ends(t);
	t->x->uses_flags = true;
	if (!is_64(t)) {
		struct x86_op *o = emit(t, X86_OP_lg_jcc);
		o->dst = (uint8_t)cc;
		o->imm = (int32_t)t->i->imm;
		o->idx = t->i->opsize;
		return;
	}
	int32_t target;
	bool near = same_page(t, t->i->imm, &target);
	struct x86_op *o = emit(t, (near ? X86_OP_j_o : X86_OP_jf_o) + cc);
	o->imm = near ? target : (int32_t)t->i->imm;
	t->x->needs_next = true;
}

void xlat_jump_or_call(struct xlat *t, bool call)
{
	ends(t);
	if (!is_64(t)) {
		struct x86_op *o = emit(t, call ? X86_OP_lg_call : X86_OP_lg_jmp);
		o->imm = (int32_t)t->i->imm;
		o->idx = t->i->opsize;
		return;
	}
	int32_t target;
	bool near = same_page(t, t->i->imm, &target);
	struct x86_op *o = emit(t, call ? (near ? X86_OP_call_near : X86_OP_call_far) : (near ? X86_OP_goto_near : X86_OP_jmp_far));
	o->imm = near ? target : (int32_t)t->i->imm;
}

void xlat_push_slot(struct xlat *t, uint8_t slot, int32_t imm, bool is_imm)
{
	const unsigned size = stack_size(t);
	t->x->uses_flags = true;
	if (is_64(t) && size == 8) {
		struct x86_op *o = emit(t, is_imm ? X86_OP_push_i : X86_OP_push_r);
		o->src = slot;
		o->imm = imm;
	} else if (is_64(t)) {
		if (is_imm) {
			struct x86_op *m = emit(t, X86_OP_mov_ri_q);
			m->dst = slot = SLOT_TMP;
			m->imm = imm;
		}
		emit(t, X86_OP_push_w)->src = slot;
	} else {
		struct x86_op *o = emit(t, X86_OP_lg_push);
		o->src = slot;
		o->imm = imm;
		o->idx = (uint8_t)size;
	}
}

void xlat_pop_slot(struct xlat *t, uint8_t slot)
{
	const unsigned size = stack_size(t);
	t->x->uses_flags = true;
	struct x86_op *o = emit(t, is_64(t) ? (size == 8 ? X86_OP_pop_r : X86_OP_pop_w) : X86_OP_lg_pop);
	o->dst = slot;
	o->idx = (uint8_t)size;
}
