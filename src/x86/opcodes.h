/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the operations (ops.def), as struct x86_op carries them. */
#ifndef X86_OPCODES_H
#define X86_OPCODES_H

enum x86_opcode {
#define OP(name)   X86_OP_##name,
#define SLOW(name) X86_OP_##name,
#include "x86/ops.def"
#undef OP
#undef SLOW
	X86_N_OPS
};

#endif
