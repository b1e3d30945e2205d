/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors are values.
 *
 * A function that can fail takes a `struct cai_error *err` as its last argument, returns 0 or -1 (or a pointer or
 * NULL), and on failure has filled *err with one sentence that a user can act on. `err` may be NULL where the caller
 * does not want the text. Nobody but main() exits the process.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

struct cai_error {
	int errnum;     /* errno of the failing call, or 0 where no system call failed */
	char text[480]; /* one sentence, no control characters, no trailing full stop; always NUL-terminated */
};

/* Sets *err to the formatted sentence; errnum is kept but not printed. Returns -1, so `return cai_fail(...)` reads well. */
int cai_fail(struct cai_error *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* As cai_fail, with ": " and the text of errnum appended. */
int cai_fail_errno(struct cai_error *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* Puts a prefix and ": " in front of what *err already says. Returns -1. */
int cai_wrap(struct cai_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

#endif
