/* SPDX-License-Identifier: Apache-2.0 */
/* The two tables that dispatch goes through, generated from ops.def. */
#include "x86/op.h"
#include "x86/opcodes.h"

#define OP(name)   x86_handler x86_fast_##name, x86_slow_##name;
#define SLOW(name) x86_handler x86_slow_##name;
#include "x86/ops.def"
#undef OP
#undef SLOW

x86_handler *const x86_fast_table[X86_N_OPS] = {
#define OP(name)   [X86_OP_##name] = x86_fast_##name,
#define SLOW(name) [X86_OP_##name] = x86_go_slow,
#include "x86/ops.def"
#undef OP
#undef SLOW
};

x86_handler *const x86_slow_table[X86_N_OPS] = {
#define OP(name)   [X86_OP_##name] = x86_slow_##name,
#define SLOW(name) [X86_OP_##name] = x86_slow_##name,
#include "x86/ops.def"
#undef OP
#undef SLOW
};
