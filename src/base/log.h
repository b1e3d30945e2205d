/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics for the developer, on standard error; what a user must read goes through struct cai_error instead. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

/* Debug lines are off until this is called with true (CAISSON_DEBUG=1, or --debug). Set once, before threads start. */
void log_set_debug(bool on);
bool log_debug_on(void);

void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
