/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's own functions, as AGENT_START_BUILTIN runs them: see proto/agent.h for each. */
#ifndef GUEST_BUILTIN_H
#define GUEST_BUILTIN_H

#include <stdbool.h>

bool builtin_exists(const char *name);

/*
 * Runs argv[0] with the words behind it, in a process of its own: standard input, output and error are the function's. Returns the exit
 * status: 0, 1 with one sentence on standard error, 2 for a wrong number of words.
 */
int builtin_run(char *const *argv);

#endif
