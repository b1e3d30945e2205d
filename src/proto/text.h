/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that the guest (or a monitor that the guest took over) chose and that a user's terminal will show. A terminal obeys
 * control characters, so the decoders of both protocols pass every such string through here.
 */
#ifndef PROTO_TEXT_H
#define PROTO_TEXT_H

#include <stdbool.h>

/* Replaces in place every C0 control character, DEL and UTF-8 encoded C1 control character by '?'. With lines, '\n' and '\t'
 * stay and '\r' is dropped. NULL is allowed. */
void proto_make_printable(char *s, bool lines);

#endif
