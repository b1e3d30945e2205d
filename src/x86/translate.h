/* SPDX-License-Identifier: Apache-2.0 */
/* From decoded instructions (insn.h) to operations (op.h). */
#ifndef X86_TRANSLATE_H
#define X86_TRANSLATE_H

#include "x86/op.h"

#define X86_MAX_OPS_PER_INSN 6

/* What the block builder must know of an instruction. */
struct x86_xlat {
	unsigned n_ops;
	bool ends_block;     /* control does not simply fall through */
	bool needs_next;     /* conditional: the block needs a jump to the next instruction behind it */
	bool sets_all_flags; /* overwrites all arithmetic flags and reads none */
	bool uses_flags;     /* may read flags, or may fault or leave (when flags must be exact) */
	int16_t no_flags;    /* index of the operation that has a form without flags at offset `no_flags_by`, or -1 */
	int16_t no_flags_by;
};

/* Translates i, which starts at offset `off` of its page, into op[]. Always succeeds: what does not exist becomes a #UD operation. */
void x86_translate_insn(const struct x86_insn *i, unsigned off, struct x86_op *op, struct x86_xlat *x);

/* Builds the operations of a block from the code bytes of one page (page[0..4096)), starting at off: at most max_ops operations.
 * Returns the number of operations (0 when the first instruction reaches into the next page or cannot be fetched: use x86_step), with the number
 * of instructions and bytes covered. */
unsigned x86_build_block(const uint8_t *page, unsigned off, enum x86_mode mode, struct x86_op *op, unsigned max_ops, unsigned *n_insns,
			 unsigned *bytes);

#endif
