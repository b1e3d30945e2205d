/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a planned sandbox, in front of the user's terminal or behind; what run, start and restart share. */
#ifndef CLI_LIFE_H
#define CLI_LIFE_H

#include "sandbox/sandbox.h"

/*
 * Runs it to its end, joined to this process's standard descriptors and signals, and finishes it. Returns the exit status to exit
 * with; what went wrong has been said. *started tells whether it ever ran.
 */
int life_attached(const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, bool *started);

/*
 * Starts it in a process of its own that outlives this one. Returns 0 when it runs, else the exit status, with *err saying what failed
 * (nothing runs then, and d is still the caller's and locked). On 0 the lock has gone to the other process.
 */
int life_detached(const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, struct cai_error *err);

#endif
