/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON text to a buffer. */
#ifndef GUEST_JSON_H
#define GUEST_JSON_H

#include <stddef.h>

#include "base/buf.h"

/* Appends formatted text as it is, at most 1023 bytes of it. */
void json_put(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends n bytes as a string in quotes. What is not valid UTF-8 comes out as U+FFFD, one for each byte. */
void json_put_string(struct buf *b, const char *s, size_t n);

#endif
