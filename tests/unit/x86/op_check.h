/* SPDX-License-Identifier: Apache-2.0 */
/* What an operation may look like, whatever the instruction: a field out of its range is an access outside struct x86_cpu. */
#ifndef OP_CHECK_H
#define OP_CHECK_H

#include <stdbool.h>

#include "x86/op.h"
#include "x86/opcodes.h"

extern const char *const op_name[X86_N_OPS];

/* NULL, or what is wrong with the operation. */
const char *op_wrong(const struct x86_op *o);
/* Whether no path through the operation's handler goes on to the operation behind it. */
bool op_is_terminal(unsigned h, enum x86_mode mode);
/* Whether the handler of `nf` is that of `h` without flags, by name. */
bool op_is_flagless_form(unsigned h, unsigned nf);

#endif
