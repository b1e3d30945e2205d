/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Straight-line code into a block of operations.
 *
 * Theory of operation: instructions of one page are decoded until one ends the block. Then two things that only the whole block shows
 * are put to use: a compare right before a conditional branch is fused with it, and arithmetic whose flags nobody can see takes the form
 * that does not compute them. "See" is strict: an instruction that may fault counts as a reader, so that flags are exact whenever
 * guest code is left; what follows the block counts as a reader too.
 */
#include "x86/translate.h"

#include "x86/opcodes.h"

/* The fused form of a compare, or 0: the enumerator for condition "o". */
static unsigned fused_form(unsigned h)
{
	switch (h) {
	case X86_OP_cmp_rr_l: return X86_OP_cmp_rr_l_j_o;
	case X86_OP_cmp_rr_q: return X86_OP_cmp_rr_q_j_o;
	case X86_OP_cmp_ri_b: return X86_OP_cmp_ri_b_j_o;
	case X86_OP_cmp_ri_l: return X86_OP_cmp_ri_l_j_o;
	case X86_OP_cmp_ri_q: return X86_OP_cmp_ri_q_j_o;
	case X86_OP_cmp_rm_l: return X86_OP_cmp_rm_l_j_o;
	case X86_OP_cmp_rm_q: return X86_OP_cmp_rm_q_j_o;
	case X86_OP_cmp_mi_b: return X86_OP_cmp_mi_b_j_o;
	case X86_OP_cmp_mi_l: return X86_OP_cmp_mi_l_j_o;
	case X86_OP_cmp_mi_q: return X86_OP_cmp_mi_q_j_o;
	case X86_OP_cmp_mr_q: return X86_OP_cmp_mr_q_j_o;
	case X86_OP_test_rr_b: return X86_OP_test_rr_b_j_o;
	case X86_OP_test_rr_l: return X86_OP_test_rr_l_j_o;
	case X86_OP_test_rr_q: return X86_OP_test_rr_q_j_o;
	case X86_OP_test_ri_b: return X86_OP_test_ri_b_j_o;
	case X86_OP_test_ri_l: return X86_OP_test_ri_l_j_o;
	case X86_OP_test_mi_b: return X86_OP_test_mi_b_j_o;
	}
	return 0;
}

#define MAX_INSNS 64

/* What the second pass needs of each instruction. */
struct mark {
	bool sets_all_flags, uses_flags;
	int16_t nf_op, nf_by; /* operation (index in the block) with a form without flags, or -1 */
};

static void drop_dead_flags(struct x86_op *op, const struct mark *m, unsigned n)
{
	bool live = true;
	while (n--) {
		if (!live && m[n].nf_op >= 0)
			op[m[n].nf_op].h = (uint16_t)(op[m[n].nf_op].h + m[n].nf_by);
		if (m[n].sets_all_flags)
			live = false;
		if (m[n].uses_flags)
			live = true;
	}
}

unsigned x86_build_block(const uint8_t *page, unsigned off, enum x86_mode mode, struct x86_op *op, unsigned max_ops, unsigned *n_insns,
			 unsigned *bytes)
{
	struct mark mark[MAX_INSNS];
	unsigned n_ops = 0, n = 0, at = off, last_len = 0;
	bool ended = false, needs_next = true;
	while (n < MAX_INSNS && n_ops + X86_MAX_OPS_PER_INSN + 1 <= max_ops && at < MEM_PAGE_SIZE) {
		struct x86_insn i;
		struct x86_xlat x;
		enum x86_decode_result r = x86_decode(page + at, MEM_PAGE_SIZE - at, mode, &i);
		if (r == X86_DECODE_MORE)
			break;
		if (r != X86_DECODE_OK) {
			op[n_ops++] = (struct x86_op){.h = r == X86_DECODE_UD ? X86_OP_ud : X86_OP_gp, .ip = (uint16_t)(at | 1u << 12)};
			mark[n++] = (struct mark){.uses_flags = true, .nf_op = -1};
			/* Any of the bytes looked at may be what makes it invalid, so the block covers them all. */
			at = at + X86_MAX_LEN < MEM_PAGE_SIZE ? at + X86_MAX_LEN : MEM_PAGE_SIZE;
			ended = true;
			needs_next = false;
			break;
		}
		x86_translate_insn(&i, at, op + n_ops, &x);
		mark[n++] = (struct mark){x.sets_all_flags, x.uses_flags, (int16_t)(x.no_flags < 0 ? -1 : x.no_flags + (int)n_ops), x.no_flags_by};
		/* A near conditional branch takes the compare in front of it along. */
		if (x.n_ops == 1 && n_ops && op[n_ops].h >= X86_OP_j_o && op[n_ops].h <= X86_OP_j_nle) {
			unsigned fused = fused_form(op[n_ops - 1].h);
			if (fused)
				op[n_ops - 1].h = (uint16_t)(fused + (op[n_ops].h - X86_OP_j_o));
		}
		n_ops += x.n_ops;
		at += i.len;
		last_len = i.len;
		if (x.ends_block) {
			ended = true;
			needs_next = x.needs_next;
			break;
		}
	}
	/* No interrupt may come between STI and the instruction behind it, but one may between blocks: STI is never the last of a block. The
	 * next one starts with it, or, at the end of the page, it is stepped. */
	if (n && !ended && op[n_ops - 1].h == X86_OP_sti) {
		n--;
		n_ops--;
		at -= last_len;
	}
	if (!n)
		return 0;
	if (!ended || needs_next) {
		struct x86_op *o = &op[n_ops++];
		*o = (struct x86_op){.h = at < MEM_PAGE_SIZE ? X86_OP_goto_near : X86_OP_goto_far, .ip = (uint16_t)(at & 0xfff), .imm = (int32_t)at};
	}
	drop_dead_flags(op, mark, n);
	*n_insns = n;
	*bytes = at - off;
	return n_ops;
}
